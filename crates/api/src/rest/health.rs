//! `/healthz`, `/livez`, `/readyz`: checks by name.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::Rest;
use super::failure::{Failure, Result};
use super::query::Query;

/// One check. An error says what is wrong.
type Check = fn(&Rest) -> std::result::Result<(), String>;

/// A process that answers lives; whoever restarts it shall not do so because others are away.
const LIVE: &[(&str, Check)] = &[("ping", ping)];
/// Can requests be served here?
const READY: &[(&str, Check)] =
    &[("ping", ping), ("caches", caches), ("leader", leader), ("shutdown", shutdown)];

pub(super) fn serve(rest: &Rest, path: &str, query: &Query) -> Result<Response> {
    let mut parts = path.trim_matches('/').split('/');
    let endpoint = parts.next().unwrap_or_default();
    let checks = match endpoint {
        "livez" => LIVE,
        "healthz" | "readyz" => READY,
        _ => return Err(Failure::no_resource()),
    };
    let one = parts.next();
    if parts.next().is_some() || one.is_some_and(|one| checks.iter().all(|(name, _)| *name != one))
    {
        return Err(Failure::no_resource());
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    let mut failed = Vec::new();
    for (name, check) in checks.iter().filter(|(name, _)| one.is_none_or(|one| one == *name)) {
        if excluded.contains(name) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check(rest) {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                text.push_str(&format!("[-]{name} failed: {reason}\n"));
                failed.push(*name);
            }
        }
    }
    let verbose = query.flag("verbose")?;
    let (code, text) = match (failed.is_empty(), verbose && one.is_none()) {
        (true, false) => (StatusCode::OK, "ok".to_owned()),
        (true, true) => (StatusCode::OK, format!("{text}{endpoint} check passed\n")),
        (false, _) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{endpoint} check failed\n"))
        }
    };
    let mut response = (code, text).into_response();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    Ok(response)
}

fn ping(_: &Rest) -> std::result::Result<(), String> {
    Ok(())
}

fn caches(rest: &Rest) -> std::result::Result<(), String> {
    if rest.registry.cache().synced() {
        return Ok(());
    }
    Err("this master is still reading its state".into())
}

fn leader(rest: &Rest) -> std::result::Result<(), String> {
    match &rest.store.leadership().borrow().leader {
        Some(_) => Ok(()),
        None => Err("no leader is known: nothing can be written".into()),
    }
}

fn shutdown(rest: &Rest) -> std::result::Result<(), String> {
    if rest.cancel.is_cancelled() { Err("this master is shutting down".into()) } else { Ok(()) }
}
