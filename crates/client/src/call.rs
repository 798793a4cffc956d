//! One call to whichever master can carry it out, until it is carried out or the time is up.

use std::time::Duration;

use quorate_proto::never_sent;
use rand::Rng as _;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::error::{Attempt, Outcome, classify, nobody};
use crate::pool::Pool;
use crate::{ClientError, ClientOptions};

/// When no master takes a connection, give up after this long: all of them restarting takes
/// less, and people should not wait for a cluster that is not there.
const REFUSED_EVERYWHERE: Duration = Duration::from_secs(2);
/// When a majority of masters refuses connections: time for one of them to come back. Less than
/// one attempt at a master that waits in vain for its majority.
const REFUSED_BY_MAJORITY: Duration = Duration::from_millis(2_500);
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// May a call be repeated when nobody knows whether it was carried out?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing.
    Safe,
    /// It changes something, and twice is the same as once as long as nobody else changes the
    /// same in between: repeated, but when no attempt has an answer the outcome is unknown.
    Idempotent,
    /// Twice is not once: report that the outcome is unknown.
    Unsafe,
}

/// What is known of each endpoint within one call.
struct Tries<'a> {
    pool: &'a Pool,
    what: &'a str,
    attempts: Vec<Option<Attempt>>,
    leader: Option<String>,
    /// A write that may have been carried out: where, and what happened there.
    in_doubt: Option<(String, String)>,
}

impl Tries<'_> {
    fn note(&mut self, index: usize, reached: bool, problem: String) {
        let endpoint = self.pool.get(index).url.clone();
        self.attempts[index] = Some(Attempt { endpoint, reached, problem });
    }

    fn reached(&self) -> usize {
        self.attempts.iter().flatten().filter(|attempt| attempt.reached).count()
    }

    fn refused(&self) -> usize {
        self.attempts.iter().flatten().filter(|attempt| !attempt.reached).count()
    }

    fn hopeless(&self, waited: Duration) -> bool {
        let total = self.attempts.len();
        (self.refused() == total && waited >= REFUSED_EVERYWHERE)
            || (self.refused() > total / 2 && waited >= REFUSED_BY_MAJORITY)
    }

    fn into_error(self) -> ClientError {
        if let Some((endpoint, problem)) = &self.in_doubt {
            return ClientError::outcome_unknown_at(endpoint, self.what, problem);
        }
        let pool = self.pool;
        let attempt = |(index, attempt): (usize, Option<Attempt>)| {
            attempt.unwrap_or_else(|| Attempt {
                endpoint: pool.get(index).url.clone(),
                reached: false,
                problem: "not tried, the time was up".into(),
            })
        };
        let reached = self.reached();
        let tried: Vec<_> = self.attempts.into_iter().enumerate().map(attempt).collect();
        tracing::debug!(what = self.what, reached, "no master could carry the call out");
        nobody(self.what, tried, self.leader)
    }
}

/// Carries `send` out at one master after the other. `send` gets a channel and the request.
pub(crate) async fn call<Q, R, F, Fut>(
    pool: &Pool,
    options: &ClientOptions,
    what: &str,
    repeat: Repeat,
    request: Q,
    send: F,
) -> Result<R, ClientError>
where
    Q: Clone,
    F: Fn(Channel, Request<Q>) -> Fut,
    Fut: Future<Output = Result<Response<R>, Status>>,
{
    let start = Instant::now();
    let deadline = start + options.timeout;
    let mut pause = FIRST_PAUSE;
    let mut tries =
        Tries { pool, what, attempts: vec![None; pool.len()], leader: None, in_doubt: None };
    loop {
        let first = pool.preferred();
        for index in (first..first + pool.len()).map(|i| i % pool.len()) {
            let now = Instant::now();
            if now >= deadline {
                return Err(tries.into_error());
            }
            // A master that hangs must not use up the time of the others.
            let patience = match repeat {
                Repeat::Safe | Repeat::Idempotent => (deadline - now).min(options.attempt_timeout),
                Repeat::Unsafe => deadline - now,
            };
            let mut request = Request::new(request.clone());
            request.set_timeout(patience);
            let answer = timeout(patience, send(pool.get(index).channel.clone(), request)).await;
            match judge(&mut tries, index, repeat, answer) {
                Some(Ok(response)) => {
                    pool.prefer(index);
                    return Ok(response);
                }
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
        let now = Instant::now();
        if tries.hopeless(now - start) || now >= deadline {
            return Err(tries.into_error());
        }
        sleep_until((now + jittered(pause)).min(deadline)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The answer of the whole call, or `None`: go on with the next master.
fn judge<R>(
    tries: &mut Tries<'_>,
    index: usize,
    repeat: Repeat,
    answer: Result<Result<Response<R>, Status>, tokio::time::error::Elapsed>,
) -> Option<Result<R, ClientError>> {
    let endpoint = tries.pool.get(index).url.clone();
    let unknown = |what: &str, problem: &str| {
        Some(Err(ClientError::outcome_unknown_at(&endpoint, what, problem)))
    };
    let outcome = match answer {
        Ok(Ok(response)) => return Some(Ok(response.into_inner())),
        Ok(Err(status)) if timed_out(&status) => Outcome::Broken("no answer in time".into()),
        Ok(Err(status)) => classify(status),
        Err(_) => Outcome::Broken("no answer in time".into()),
    };
    match outcome {
        Outcome::Final(error) => {
            tries.pool.prefer(index);
            // Perhaps it is refused because of what the attempt before has done.
            let in_doubt = tries.in_doubt.as_ref();
            return Some(Err(in_doubt.map_or(error, |(endpoint, problem)| {
                ClientError::outcome_unknown_at(endpoint, tries.what, problem)
            })));
        }
        Outcome::Later(error) => {
            // Followers forward by themselves; the hint only says whom to ask first next time.
            if let Some(leader) = error.leader.as_deref().and_then(|l| tries.pool.position(l)) {
                tries.pool.prefer(leader);
            }
            tries.leader = error.leader;
            tries.note(index, true, error.message);
        }
        Outcome::NotSent(problem) => tries.note(index, false, problem),
        Outcome::Broken(problem) if repeat == Repeat::Unsafe => {
            tries.pool.prefer(index + 1);
            return unknown(tries.what, &problem);
        }
        Outcome::Broken(problem) => {
            if repeat == Repeat::Idempotent {
                tries.in_doubt = Some((endpoint, problem.clone()));
            }
            tries.note(index, true, problem);
        }
    }
    None
}

/// Our own deadline, not one that a master reports, and not a connection that gave the call back.
fn timed_out(status: &Status) -> bool {
    use std::error::Error as _;
    let local = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
    local && status.source().is_some() && never_sent(status).is_none()
}

/// Between half of `pause` and all of it, so that many clients do not come back at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
#[path = "call_test.rs"]
mod tests;
