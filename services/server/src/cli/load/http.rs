//! The requests of the load test, over connections that all users share. The figures
//! contain their latency until the last byte of the response.
//!
//! Requests do not go through a proxy of the environment, which would be measured too.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use eventlog::error::error_chain;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::figures::Failure;
use super::readers::Token;
use super::request::Request;

/// Longest time until a response. The service itself gives up after 15 s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time until the first response, before the run.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter than the time after which proxies close idle connections. Otherwise a proxy
/// could close a connection on which a request is sent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Characters of a text from a response that are kept.
const MAX_TEXT: usize = 200;

const PREFIX: &str = "/api/v1/reading-sessions";

/// Why a call failed, with an example for people.
#[derive(Debug)]
pub struct CallError {
    pub failure: Failure,
    /// The `detail` of the problem document, or the cause.
    pub example: String,
}

/// The members of a problem document that the report contains.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}

/// The API of a deployment.
pub struct Api {
    client: Client,
    /// Up to `/api/v1/reading-sessions`.
    url: String,
}

impl Api {
    /// # Errors
    /// If the address contains a user, a password, a query or a fragment, or the
    /// certificate authorities of the machine cannot be read.
    pub fn new(address: &Url) -> anyhow::Result<Self> {
        // Without a repetition of the address, which is secret then.
        ensure!(
            address.username().is_empty() && address.password().is_none(),
            "the address contains a user or a password; readers have tokens (--tokens)"
        );
        ensure!(
            address.query().is_none() && address.fragment().is_none(),
            "the address contains a query or a fragment; expected for example \
             https://reading.example"
        );
        let mut client = Client::builder()
            .user_agent(concat!("reading-sessions-load/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .no_proxy()
            .no_gzip();
        if address.scheme() == "http" {
            // Without TLS, the machine need not have certificate authorities.
            client = client.tls_certs_only([]);
        }
        let base = address.as_str().trim_end_matches('/');
        let base = base.strip_suffix(PREFIX).unwrap_or(base);
        Ok(Self {
            client: client.build().context("the TLS client cannot start")?,
            url: format!("{base}{PREFIX}"),
        })
    }

    /// Requests the active session of a reader, before the run.
    ///
    /// # Errors
    /// If the service is unreachable, is not this service, or refuses the token.
    pub async fn check(&self, token: &Token) -> anyhow::Result<()> {
        let url = &self.url;
        let request = self.request(token, Method::GET, "/active", None);
        let (status, body) = match receive(request.timeout(CHECK_TIMEOUT)).await {
            Ok(response) => response,
            Err(error) => bail!(
                "{url} is unreachable: {}; check the address, and that the service is running",
                error.example
            ),
        };
        match result(status, &body) {
            Ok(_) => Ok(()),
            Err(error) if status == StatusCode::UNAUTHORIZED => bail!(
                "{url} refuses the token with {}: {}; use tokens or the secret of this deployment",
                error.failure,
                error.example
            ),
            Err(error)
                if status == StatusCode::NOT_FOUND || error.failure == Failure::InvalidResponse =>
            {
                bail!(
                    "{url} is not the API of Reading Sessions: GET /active failed with {}: {}; check \
                     the address",
                    error.failure,
                    error.example
                )
            }
            Err(error) => bail!(
                "{url} is not ready: GET /active failed with {}: {}",
                error.failure,
                error.example
            ),
        }
    }

    /// Sends a request. Returns its latency, and the id of the session that it started.
    pub async fn send(
        &self,
        token: &Token,
        request: Request,
    ) -> (Duration, Result<Option<Uuid>, CallError>) {
        let (method, path, body) = request.parts();
        let prepared = self.request(token, method, &path, body);
        let sent = Instant::now();
        let response = receive(prepared).await;
        let latency = sent.elapsed();
        let value = response.and_then(|(status, body)| result(status, &body));
        let result = value.and_then(|value| match request {
            Request::Start { .. } => {
                let id = value["id"].as_str().and_then(|id| id.parse().ok());
                id.map(Some).ok_or_else(|| CallError {
                    failure: Failure::InvalidResponse,
                    example: "the response has no `id`".to_owned(),
                })
            }
            _ => Ok(None),
        });
        (latency, result)
    }

    /// Erases all data of the token's reader.
    pub async fn erase(&self, token: &Token, reader: Uuid) -> Result<(), CallError> {
        let path = format!("?confirm={reader}");
        let request = self.request(token, Method::DELETE, &path, None);
        let (status, body) = receive(request).await?;
        result(status, &body).map(|_| ())
    }

    fn request(
        &self,
        token: &Token,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> RequestBuilder {
        let url = format!("{}{path}", self.url);
        let request = self.client.request(method, url).bearer_auth(token.expose());
        match body {
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string()),
            None => request,
        }
    }
}

/// Parses an address. Without a scheme it is that of an HTTP service.
pub fn parse_address(text: &str) -> Result<Url, String> {
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    match Url::parse(&with_scheme) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => {
            Err("expected for example http://127.0.0.1:8080 or https://reading.example".to_owned())
        }
    }
}

/// Sends a request and reads the whole response.
async fn receive(request: RequestBuilder) -> Result<(StatusCode, Bytes), CallError> {
    let received = async {
        let response = request.send().await?;
        let status = response.status();
        Ok((status, response.bytes().await?))
    };
    received.await.map_err(|error: reqwest::Error| CallError {
        failure: if error.is_timeout() {
            Failure::Timeout
        } else {
            Failure::Connection
        },
        example: shortened(&error_chain(&error.without_url())),
    })
}

/// The JSON of a successful response.
fn result(status: StatusCode, body: &[u8]) -> Result<Value, CallError> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| CallError {
            failure: Failure::InvalidResponse,
            example: format!("{status} without JSON: {error}"),
        });
    }
    // A proxy may respond without a problem document.
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let example = if problem.detail.is_empty() {
        format!("{status} without a problem document")
    } else {
        shortened(&problem.detail)
    };
    let code = shortened(&problem.code);
    Err(CallError {
        failure: Failure::Status {
            status: status.as_u16(),
            code,
        },
        example,
    })
}

/// At most [`MAX_TEXT`] characters, without control characters.
fn shortened(text: &str) -> String {
    let visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    visible.take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(address: &str) -> anyhow::Result<Api> {
        Api::new(&parse_address(address).unwrap())
    }

    #[test]
    fn addresses_may_lack_the_scheme_and_may_have_a_path() {
        for (address, url) in [
            (
                "127.0.0.1:8080",
                "http://127.0.0.1:8080/api/v1/reading-sessions",
            ),
            (
                "http://[::1]:8080/",
                "http://[::1]:8080/api/v1/reading-sessions",
            ),
            (
                "http://reading.example/api/v1/reading-sessions/",
                "http://reading.example/api/v1/reading-sessions",
            ),
            (
                "http://reading.example/books",
                "http://reading.example/books/api/v1/reading-sessions",
            ),
        ] {
            assert_eq!(api(address).unwrap().url, url);
        }
        for invalid in ["", "ftp://reading.example", "http://", "a b"] {
            assert!(parse_address(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn address_with_a_password_is_refused_and_not_repeated() {
        let error = api("http://jo:s3cr3t@reading.example")
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("password") && !error.contains("s3cr3t"),
            "{error}"
        );
        assert!(api("http://reading.example/?a=b").is_err());
    }

    #[test]
    fn problem_documents_become_errors_with_their_code() {
        let body = br#"{"code":"rate_limited","detail":"Too many\nrequests"}"#;
        let error = result(StatusCode::TOO_MANY_REQUESTS, body).unwrap_err();
        assert_eq!(error.failure.to_string(), "429 rate_limited");
        assert_eq!(error.example, "Too many requests");
        let error = result(StatusCode::BAD_GATEWAY, b"<html>").unwrap_err();
        assert_eq!(error.failure.to_string(), "502");
        assert_eq!(error.example, "502 Bad Gateway without a problem document");
        let error = result(StatusCode::OK, b"<html>").unwrap_err();
        assert_eq!(error.failure, Failure::InvalidResponse);
        assert!(result(StatusCode::OK, b"null").is_ok());
    }
}
