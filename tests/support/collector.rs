//! A collector of traces, which receives spans by OTLP as the official messages: over gRPC
//! and as protobuf over HTTP, on one port.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A running collector. It stops when it is dropped.
pub struct Collector {
    pub address: SocketAddr,
    received: Received,
    server: JoinHandle<()>,
}

/// A span, with the attributes of the process that exported it.
#[derive(Clone, Debug)]
pub struct ReceivedSpan {
    pub resource: BTreeMap<String, String>,
    pub attributes: BTreeMap<String, String>,
    pub span: Span,
}

impl ReceivedSpan {
    /// The trace, in hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// Empty for the first span of a trace.
    #[must_use]
    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    #[must_use]
    pub fn kind(&self) -> SpanKind {
        self.span.kind()
    }

    /// The value of an attribute as text; empty if it is missing.
    #[must_use]
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// All spans so far, and the headers of the last request.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<(Vec<ReceivedSpan>, HeaderMap)>>);

impl Received {
    fn add(&self, headers: HeaderMap, request: ExportTraceServiceRequest) {
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        received.1 = headers;
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.map(|resource| resource.attributes);
            let resource = texts(&resource.unwrap_or_default());
            let spans = of_resource.scope_spans.into_iter();
            for span in spans.flat_map(|of_scope| of_scope.spans) {
                received.0.push(ReceivedSpan {
                    resource: resource.clone(),
                    attributes: texts(&span.attributes),
                    span,
                });
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.add(metadata.into_headers(), request);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts a collector on a free port.
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    /// Starts a collector on this port.
    pub async fn at(address: SocketAddr) -> Self {
        let received = Received::default();
        let over_http = received.clone();
        let export =
            async move |headers: HeaderMap, body: Bytes| match ExportTraceServiceRequest::decode(
                body,
            ) {
                Ok(request) if headers["content-type"] == "application/x-protobuf" => {
                    over_http.add(headers, request);
                    StatusCode::OK
                }
                _ => StatusCode::BAD_REQUEST,
            };
        let router = Router::new()
            .route("/v1/traces", post(export))
            .route_service(GRPC_PATH, TraceServiceServer::new(received.clone()));
        let listener = TcpListener::bind(address).await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            received,
            server: tokio::spawn(async move {
                axum::serve(listener, router).await.unwrap();
            }),
        }
    }

    /// All spans that were received so far.
    #[must_use]
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        let received = self.received.0.lock();
        received.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The spans of a trace that were received so far.
    #[must_use]
    pub fn trace(&self, trace: &str) -> Vec<ReceivedSpan> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace() == trace);
        spans
    }

    /// The headers of the last request.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let received = self.received.0.lock();
        received.unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let attributes = attributes.iter();
    attributes
        .map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref())))
        .collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(value)) => value.to_string(),
        other => panic!("no span has such an attribute: {other:?}"),
    }
}
