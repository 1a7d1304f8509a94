//! A panic in a handler gives one 500 and has no other effect.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::unnecessary_wraps,
    reason = "a test may panic"
)]

mod common;

use std::sync::Arc;

use common::Server;
use lockhouse::api::exchange::Response;
use lockhouse::api::operation::{Answer, Call, Route};
use lockhouse::api::problem::Problem;
use lockhouse::api::workers::READERS;
use lockhouse::app::Service;

fn at_once(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    panic!("a defect before the answer (this line belongs to a test)")
}

fn later(service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    let service = Arc::clone(service);
    Ok(Answer::later(move |reply| {
        service.ready(move |_| {
            reply.send_with(|| panic!("a defect after the commit (this line belongs to a test)"));
        });
    }))
}

fn forgotten(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::later(drop))
}

fn fine(_: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
    Ok(Answer::Now(Response::empty(204)))
}

const fn route(path: &'static str, handler: fn(&Arc<Service>, &Call) -> Result<Answer, Problem>) -> Route {
    Route::new("GET", path, "test", handler)
}

static ROUTES: [Route; 4] = [
    route("/at-once", at_once),
    route("/later", later),
    route("/forgotten", forgotten),
    route("/fine", fine),
];

#[test]
fn a_panicking_handler_gives_one_500() {
    let server = Server::with_routes(&ROUTES, |_| {});
    let mut client = server.client();
    // More often than there are workers.
    for round in 0..3 * READERS {
        for path in ["/at-once", "/later", "/forgotten"] {
            let answer = client.try_request("GET", path, &[], b"").unwrap();
            let problem = answer.refused(500, "internal");
            assert!(!problem.to_string().contains("defect"), "{problem}");
            assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "round {round}");
            assert_eq!(client.try_request("GET", "/fine", &[], b"").unwrap().status, 204);
        }
    }
}
