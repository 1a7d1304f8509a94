from django.db import migrations, models


def first_document(apps, _schema_editor):
    apps.get_model("documents", "Document").objects.create(id="design-42", body="The workshop is on Thursday.")


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Document",
            fields=[
                ("id", models.SlugField(primary_key=True, serialize=False)),
                ("body", models.TextField()),
                ("fence", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.RunPython(first_document, migrations.RunPython.noop),
    ]
