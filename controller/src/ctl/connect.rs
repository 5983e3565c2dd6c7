//! The way to a controller: the first of several that answers.
//!
//! A read is tried on each controller in turn. A change is only tried again where it has certainly not been made: once
//! it was sent, a broken connection leaves its outcome unknown, and the operator is told so.

use std::error::Error;
use std::time::Duration;

use dysvr_proto::wire::operator::operator_client::OperatorClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::cli::{CONTROLLER_ENV, Global};
use super::exit::{self, Failure};

/// What the calls are made on.
pub type Client = OperatorClient<Channel>;

/// A connection is given up after this time even when a request may take longer: the next controller may be there.
const CONNECT: Duration = Duration::from_secs(5);
/// Controllers that all answer "unavailable" are asked again for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before they are asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// A stream that is silent for so long is asked for a sign of life, and given up when none comes in the same time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The controllers, and the connection to the one that was last reached.
pub struct Controllers {
    endpoints: Vec<(String, Endpoint)>,
    request_timeout: Option<Duration>,
    at: usize,
    client: Option<Client>,
}

impl Controllers {
    /// Of the options of the command line; connects to nothing yet.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let request_timeout = Some(global.request_timeout).filter(|timeout| !timeout.is_zero());
        let urls = global.controllers(std::env::var(CONTROLLER_ENV).ok());
        let urls = urls.iter().map(|url| url.trim()).filter(|url| !url.is_empty());
        let endpoints = urls
            .map(|url| Ok((url.to_owned(), endpoint(url, request_timeout)?)))
            .collect::<Result<Vec<_>, Failure>>()?;
        if endpoints.is_empty() {
            return Err(Failure::Usage("--controller names no controller".into()));
        }
        Ok(Self { endpoints, request_timeout, at: 0, client: None })
    }

    /// Asks for something that changes nothing: every controller is tried before it fails.
    pub async fn read<T>(&mut self, call: impl AsyncFn(Client) -> Result<Response<T>, Status>) -> Result<T, Failure> {
        self.ask(call, |failure| failure.code() == exit::UNREACHABLE).await
    }

    /// Asks for a change. A controller that answers "unavailable" has done nothing (it does not lead, its store is
    /// away), so the next one is asked; where the answer is lost, the operator has to look.
    pub async fn change<T>(&mut self, call: impl AsyncFn(Client) -> Result<Response<T>, Status>) -> Result<T, Failure> {
        let refused =
            |failure: &Failure| matches!(failure, Failure::Server(status) if status.code() == Code::Unavailable);
        match self.ask(call, refused).await {
            Err(Failure::Unreachable(text)) if self.client.is_some() => {
                self.leave();
                Err(Failure::Unreachable(format!(
                    "{text}; it is unknown whether the change was made: see \"dysvrctl get revisions\" and \
                     \"dysvrctl get rollouts\""
                )))
            }
            other => other,
        }
    }

    /// Asks one controller after the other while the answer is one that another one may better. When all have given
    /// such an answer, they are asked again for a while: a controller that has just died has a successor in seconds.
    async fn ask<T>(
        &mut self,
        call: impl AsyncFn(Client) -> Result<Response<T>, Status>,
        go_on: impl Fn(&Failure) -> bool,
    ) -> Result<T, Failure> {
        let patience = self.request_timeout.map_or(PATIENCE, |limit| limit.min(PATIENCE));
        let began = Instant::now();
        loop {
            let mut failure = None;
            for _ in 0..self.endpoints.len() {
                let client = self.connect().await?; // fails when none of them is there
                match self.timed(call(client)).await {
                    Ok(reply) => return Ok(reply.into_inner()),
                    Err(next) if go_on(&next) => {
                        self.leave();
                        failure = Some(next);
                    }
                    Err(other) => return Err(other),
                }
            }
            let Some(failure) = failure else { return Err(Failure::Unreachable("no controller".into())) };
            if !matches!(failure, Failure::Server(_)) || began.elapsed() + PAUSE > patience {
                return Err(failure);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What a stream that broke off means.
    pub fn lost(&self, status: Status) -> Failure {
        failure_of(&self.endpoints[self.at].0, status)
    }

    /// Forgets the connection: the next call begins with the next controller.
    pub fn leave(&mut self) {
        self.client = None;
        self.at = (self.at + 1) % self.endpoints.len();
    }

    async fn connect(&mut self) -> Result<Client, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let mut failures = Vec::new();
        for _ in 0..self.endpoints.len() {
            let (url, endpoint) = &self.endpoints[self.at];
            match endpoint.connect().await {
                Ok(channel) => {
                    // Ten thousand vhosts in one list are more than tonic's 4 MiB.
                    let client = OperatorClient::new(channel)
                        .max_decoding_message_size(usize::MAX)
                        .max_encoding_message_size(usize::MAX);
                    self.client = Some(client.clone());
                    return Ok(client);
                }
                Err(error) => {
                    failures.push(format!("{url}: {}", root_cause(&error)));
                    self.leave();
                }
            }
        }
        Err(Failure::Unreachable(format!("cannot reach a controller: {}", failures.join("; "))))
    }

    async fn timed<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
        let url = &self.endpoints[self.at].0;
        let result = match self.request_timeout {
            None => call.await,
            Some(limit) => match tokio::time::timeout(limit, call).await {
                Ok(result) => result,
                Err(_) => {
                    return Err(Failure::Unreachable(format!("{url} did not answer within {limit:?}")));
                }
            },
        };
        result.map_err(|status| failure_of(url, status))
    }
}

/// A status that the transport made up is a lost connection, every other one is the controller's answer.
fn failure_of(url: &str, status: Status) -> Failure {
    let by_transport = status.source().is_some()
        && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    match status.source() {
        Some(source) if by_transport => {
            Failure::Unreachable(format!("lost the connection to {url}: {}", root_cause(source)))
        }
        _ => status.into(),
    }
}

fn endpoint(url: &str, request_timeout: Option<Duration>) -> Result<Endpoint, Failure> {
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let wrong = |why: &str| Failure::Usage(format!("--controller {url}: {why}"));
    let endpoint = Endpoint::from_shared(full).map_err(|error| wrong(&root_cause(&error)))?;
    match endpoint.uri().scheme_str() {
        Some("http") => {}
        Some(scheme) => return Err(wrong(&format!("{scheme}:// is not supported, only http://"))),
        None => return Err(wrong("not an http:// URL")),
    }
    if endpoint.uri().host().unwrap_or_default().is_empty() {
        return Err(wrong("there is no host in it"));
    }
    Ok(endpoint
        .connect_timeout(request_timeout.map_or(CONNECT, |limit| limit.min(CONNECT)))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// The innermost error: "transport error" alone tells nobody anything.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(urls: &[&str]) -> Result<Controllers, Failure> {
        let controller = urls.iter().map(|url| (*url).to_owned()).collect();
        Controllers::new(&Global { controller, request_timeout: Duration::from_secs(1) })
    }

    #[test]
    fn urls_that_cannot_work_are_refused_by_name() {
        for (url, why) in [
            ("https://a:1", "https:// is not supported"),
            ("ftp://a", "ftp:// is not supported"),
            ("http://", "--controller http://"),
            ("", "names no controller"),
            ("http://a b", "--controller http://a b"),
        ] {
            let failure = new(&[url]).err().expect(url);
            assert!(failure.to_string().contains(why), "{url}: {failure}");
            assert_eq!(failure.code(), 2);
        }
        assert!(new(&["127.0.0.1:7480", "http://[::1]:7480"]).is_ok());
    }
}
