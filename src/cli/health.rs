//! `lockhouse health`: checks whether a running server is ready. For container health checks and scripts.

use std::io::{self, Write};

use serde::Deserialize;

use super::client::{PATIENCE, ServerFlags};
use super::http::{ApiRequest, RemoteServer, ServerAnswer};

/// The body of `/readyz` and `/healthz`.
#[derive(Deserialize)]
struct HealthAnswer {
    status: String,
}

/// Calls the server and prints one sentence.
pub(super) fn run(target: &ServerFlags) -> Result<(), String> {
    let server = target.server()?;
    let why = match server.call(&get("/readyz"), PATIENCE) {
        Ok(ready) if says(&ready, "ready") => {
            let _ = writeln!(io::stdout(), "{server} is ready");
            return Ok(());
        }
        Ok(ready) => format!("is not ready: {}", ready.problem()),
        Err(error) => error,
    };
    Err(format!("{server} {why}{}", if is_up(&server) { "; the process is up" } else { "" }))
}

fn get(path: &str) -> ApiRequest {
    ApiRequest { method: "GET", path: path.to_owned(), headers: Vec::new(), body: None }
}

fn is_up(server: &RemoteServer) -> bool {
    server.call(&get("/healthz"), PATIENCE).is_ok_and(|response| says(&response, "up"))
}

fn says(response: &ServerAnswer, status: &str) -> bool {
    response.status == 200 && response.body().is_some_and(|health: HealthAnswer| health.status == status)
}
