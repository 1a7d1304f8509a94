# Needs no provider. Each apply takes a while, so that another one can meet it.
terraform {
  backend "http" {} # its settings are in the environment: see env
}

variable "seconds" {
  default = 30
}

resource "terraform_data" "network" {
  triggers_replace = timestamp()

  provisioner "local-exec" {
    command = "sleep ${var.seconds}"
  }
}
