//! The client of a collector of traces: OTLP as protobuf over HTTP, or over gRPC
//! (<https://opentelemetry.io/docs/specs/otlp/>). A unary call of gRPC is a POST over HTTP/2
//! with a prefix before the message, and its status in trailers
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>), so one HTTP client
//! serves both. It never retries.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, anyhow};
use api::secret::Secret;
use axum::http::header::{CONTENT_TYPE, TE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::{BufMut, Bytes, BytesMut};
use eventlog::error::error_chain;
use http_body_util::{BodyExt, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use reqwest::{Certificate, Client, Url, redirect};
use thiserror::Error;

use crate::config::{OtlpProtocol, TraceArgs};
use crate::connect::read_certificates;

/// The longest time of a request.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response that is read, in bytes.
const MAX_RESPONSE: usize = 64 * 1_024;

/// The flag and the length before a message of gRPC, in bytes.
const GRPC_PREFIX: usize = 5;

/// The codes of gRPC after which OTLP clients may retry: cancelled, deadline exceeded,
/// resource exhausted, aborted, out of range, unavailable and data loss.
const GRPC_RETRYABLE: [&str; 7] = ["1", "4", "8", "10", "11", "14", "15"];

/// A batch was not exported.
#[derive(Debug, Error)]
pub(super) enum SendError {
    /// The collector does not accept it. A retry fails again.
    #[error("it rejects spans with {0}")]
    Refused(String),
    /// The collector is unreachable or overloaded. Retry later.
    #[error("{0}")]
    Unavailable(String),
}

/// A collector. Displays its address without secrets.
pub(super) struct Collector {
    client: Client,
    url: Url,
    protocol: OtlpProtocol,
    headers: HeaderMap,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Secret::from(self.url.to_string()).redacted_url();
        write!(f, "{url} ({})", self.protocol)
    }
}

impl Collector {
    /// # Errors
    /// When the headers or the certificate file are invalid.
    pub(super) fn new(args: &TraceArgs, endpoint: &Url) -> anyhow::Result<Self> {
        let mut client = Client::builder()
            .user_agent(concat!("reading-sessions/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(SEND_TIMEOUT);
        if args.otlp_protocol == OtlpProtocol::Grpc {
            client = client.http2_prior_knowledge();
        }
        if endpoint.scheme() == "http" {
            // Without TLS there is nothing to verify, so the machine need not have root
            // certificates.
            client = client.tls_certs_only([]);
        } else if let Some(file) = &args.otlp_certificate {
            let pem = read_certificates(file, "OTEL_EXPORTER_OTLP_CERTIFICATE")?;
            let certificates = Certificate::from_pem_bundle(&pem)?;
            client = client.tls_certs_only(certificates);
        }
        let (path, content_type): (&[&str], _) = match args.otlp_protocol {
            OtlpProtocol::HttpProtobuf => (&["v1", "traces"], "application/x-protobuf"),
            OtlpProtocol::Grpc => (
                &[
                    "opentelemetry.proto.collector.trace.v1.TraceService",
                    "Export",
                ],
                "application/grpc",
            ),
        };
        let mut url = endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("the address has no path"))?
            .pop_if_empty()
            .extend(path);
        let mut headers = args.headers()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if args.otlp_protocol == OtlpProtocol::Grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(Self {
            client: client.build().context("creating the HTTP client failed")?,
            url,
            protocol: args.otlp_protocol,
            headers,
        })
    }

    /// Sends a batch, and returns how many of its spans the collector has rejected.
    pub(super) async fn send(&self, request: &ExportTraceServiceRequest) -> Result<u64, SendError> {
        let request = self
            .client
            .post(self.url.clone())
            .body(self.encode(request));
        let response = request.headers(self.headers.clone()).send().await;
        let response = Response::from(response.map_err(unavailable)?);
        let (head, body) = response.into_parts();
        let status = head.status;
        if status != StatusCode::OK {
            let is_temporary = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
                || status == StatusCode::TOO_MANY_REQUESTS;
            return Err(failure(status.to_string(), is_temporary));
        }
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        let body = body.map_err(|error| SendError::Unavailable(error_chain(&*error)))?;
        if self.protocol == OtlpProtocol::Grpc {
            let trailers = body.trailers().unwrap_or(&head.headers);
            check_grpc_status(trailers)?;
        }
        Ok(self.rejected(&body.to_bytes()))
    }

    fn encode(&self, request: &ExportTraceServiceRequest) -> Bytes {
        let length = request.encoded_len();
        let mut body = BytesMut::with_capacity(GRPC_PREFIX + length);
        if self.protocol == OtlpProtocol::Grpc {
            body.put_u8(0);
            body.put_u32(u32::try_from(length).expect("a batch is far below 4 GB"));
        }
        request
            .encode(&mut body)
            .expect("the buffer grows as needed");
        body.freeze()
    }

    /// The number of rejected spans in a successful response.
    fn rejected(&self, body: &Bytes) -> u64 {
        let message = match self.protocol {
            OtlpProtocol::HttpProtobuf => Some(&body[..]),
            OtlpProtocol::Grpc => body.get(GRPC_PREFIX..),
        };
        let response = message.and_then(|message| ExportTraceServiceResponse::decode(message).ok());
        let partial = response.and_then(|response| response.partial_success);
        partial.map_or(0, |partial| partial.rejected_spans.unsigned_abs())
    }
}

/// # Errors
/// When the call has failed, or the status is missing because the connection broke.
fn check_grpc_status(trailers: &HeaderMap) -> Result<(), SendError> {
    let status = trailers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok());
    match status {
        Some("0") => Ok(()),
        Some(code) => Err(failure(
            format!("gRPC status {code}"),
            GRPC_RETRYABLE.contains(&code),
        )),
        None => Err(SendError::Unavailable(
            "the response has no gRPC status; is OTEL_EXPORTER_OTLP_PROTOCOL right?".to_owned(),
        )),
    }
}

fn failure(cause: String, is_temporary: bool) -> SendError {
    if is_temporary {
        SendError::Unavailable(cause)
    } else {
        SendError::Refused(cause)
    }
}

/// Without the URL, which may contain a secret.
fn unavailable(error: reqwest::Error) -> SendError {
    SendError::Unavailable(error_chain(&error.without_url()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn check(status: Option<&'static str>) -> Result<(), SendError> {
        let status = status.map(|status| {
            let name = HeaderName::from_static("grpc-status");
            (name, HeaderValue::from_static(status))
        });
        check_grpc_status(&status.into_iter().collect())
    }

    #[test]
    fn batch_is_repeated_unless_the_collector_rejects_it() {
        assert!(check(Some("0")).is_ok());
        // Unavailable, resource exhausted, and a response without a status.
        for temporary in [Some("14"), Some("8"), None] {
            let error = check(temporary).unwrap_err();
            assert!(matches!(error, SendError::Unavailable(_)), "{error}");
        }
        // Invalid argument, unauthenticated, unimplemented.
        for permanent in [Some("3"), Some("16"), Some("12")] {
            let error = check(permanent).unwrap_err();
            assert!(matches!(error, SendError::Refused(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn address_is_shown_and_logged_without_its_password() {
        // Nothing listens on the discard port.
        let endpoint = Url::parse("http://me:s3cr3t@127.0.0.1:9").unwrap();
        let collector = Collector::new(&TraceArgs::default(), &endpoint).unwrap();
        let shown = collector.to_string();
        assert!(shown.contains("/v1/traces (http/protobuf)"), "{shown}");
        let request = ExportTraceServiceRequest::default();
        let error = collector.send(&request).await.unwrap_err().to_string();
        for text in [shown, error] {
            assert!(!text.contains("s3cr3t"), "{text}");
        }
    }
}
