//! The export of traces, with the names and values of OpenTelemetry's own settings.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use api::secret::Secret;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use clap::{Args, ValueEnum};
use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::{read_secret, variable};

const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// One trace in a hundred: enough to see the usual case, at a cost below the noise of a
/// benchmark.
const DEFAULT_RATIO: f64 = 0.01;

/// Traces of requests, exported to an OpenTelemetry collector.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Address of an OpenTelemetry collector, for example `http://collector:4318`
    /// [default: no traces].
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        hide_env_values = true
    )]
    pub otlp_endpoint: Option<Secret>,
    /// Protocol of the collector at this address; usually port 4318 is `http/protobuf`, and
    /// 4317 is `grpc`.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        value_name = "PROTOCOL",
        value_enum,
        default_value_t
    )]
    pub otlp_protocol: OtlpProtocol,
    /// Headers for the collector from the environment variable `OTEL_EXPORTER_OTLP_HEADERS`.
    /// It has no flag, because it usually contains a secret.
    #[arg(skip = headers_from_environment())]
    pub otlp_headers: Option<Secret>,
    /// File with headers for the collector, for example `authorization=Bearer%20…`; or set
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    ///
    /// The headers are separated by commas, and their values percent-encoded.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS_FILE", value_name = "FILE")]
    pub otlp_headers_file: Option<PathBuf>,
    /// File with the certificates of the authorities that may issue the certificate of the
    /// collector (PEM) [default: the authorities of the system].
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_certificate: Option<PathBuf>,
    /// Which traces are exported. With `parentbased_…`, the client decides about its own.
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER",
        value_name = "SAMPLER",
        value_enum,
        default_value_t
    )]
    pub traces_sampler: TracesSampler,
    /// Share of the traces that `…traceidratio` exports, from 0 to 1.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value_t = DEFAULT_RATIO, value_parser = parse_ratio)]
    pub traces_sampler_arg: f64,
    /// Name of the service in its traces.
    #[arg(
        long,
        env = "OTEL_SERVICE_NAME",
        value_name = "NAME",
        default_value = "reading-sessions"
    )]
    pub otel_service_name: String,
}

/// No traces.
impl Default for TraceArgs {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_protocol: OtlpProtocol::default(),
            otlp_headers: None,
            otlp_headers_file: None,
            otlp_certificate: None,
            traces_sampler: TracesSampler::default(),
            traces_sampler_arg: DEFAULT_RATIO,
            otel_service_name: "reading-sessions".to_owned(),
        }
    }
}

/// How spans are sent. The default is that of OpenTelemetry's specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OtlpProtocol {
    #[default]
    #[value(name = "http/protobuf")]
    HttpProtobuf,
    Grpc,
}

/// Which traces are exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum TracesSampler {
    /// All traces, whatever the client has decided.
    AlwaysOn,
    /// No traces, whatever the client has decided.
    AlwaysOff,
    /// A share of all traces.
    #[value(name = "traceidratio")]
    TraceIdRatio,
    /// The traces that clients have sampled, and all that begin here.
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// The traces that clients have sampled.
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// The traces that clients have sampled, and a share of those that begin here.
    #[default]
    #[value(name = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

impl fmt::Display for OtlpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_value(self, f)
    }
}

impl fmt::Display for TracesSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_value(self, f)
    }
}

fn fmt_value(value: &impl ValueEnum, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let value = value.to_possible_value().ok_or(fmt::Error)?;
    f.write_str(value.get_name())
}

impl TraceArgs {
    /// The address of the collector; `None` without one.
    ///
    /// # Errors
    /// When it is not an address with `http://` or `https://`.
    pub fn endpoint(&self) -> anyhow::Result<Option<Url>> {
        let Some(address) = &self.otlp_endpoint else {
            return Ok(None);
        };
        if address.expose().trim().is_empty() {
            return Ok(None);
        }
        match Url::parse(address.expose().trim()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
            _ => Err(anyhow!(
                "OTEL_EXPORTER_OTLP_ENDPOINT is not an address with http:// or https://, for \
                 example http://collector:4318; correct it, or remove it to turn traces off"
            )),
        }
    }

    /// The headers of each request to the collector.
    ///
    /// # Errors
    /// When the file cannot be read, or its content is not `name=value,…`.
    pub fn headers(&self) -> anyhow::Result<HeaderMap> {
        let (text, file) = (&self.otlp_headers, &self.otlp_headers_file);
        if text.is_none() && file.is_none() {
            return Ok(HeaderMap::new());
        }
        let text = read_secret(HEADERS, text.as_ref(), file.as_ref())?;
        let pairs = text.expose().split(',').map(str::trim);
        let pairs = pairs.filter(|pair| !pair.is_empty());
        // The error must not contain the value.
        pairs
            .map(|pair| header(pair).with_context(|| format!("{HEADERS} is not `name=value,…`")))
            .collect()
    }
}

fn header(pair: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = pair.split_once('=').context("a header without `=`")?;
    let name = HeaderName::try_from(name.trim()).context("an invalid header name")?;
    let value = percent_decode_str(value.trim()).decode_utf8();
    let value = value.map_err(|_| anyhow!("the value of {name} is not UTF-8"))?;
    let mut value = HeaderValue::try_from(&*value)
        .map_err(|_| anyhow!("the value of {name} contains invalid characters"))?;
    ensure!(!value.is_empty(), "the value of {name} is empty");
    value.set_sensitive(true);
    Ok((name, value))
}

fn headers_from_environment() -> Option<Secret> {
    variable(HEADERS).map(Secret::from)
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1, for example `0.01`".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        traces: TraceArgs,
    }

    fn parse(arguments: &[&str]) -> TraceArgs {
        let arguments = ["test"].iter().chain(arguments);
        Command::try_parse_from(arguments).unwrap().traces
    }

    #[test]
    fn names_are_those_of_opentelemetry() {
        let defaults = parse(&[]);
        assert_eq!(defaults.otlp_protocol.to_string(), "http/protobuf");
        let sampler = defaults.traces_sampler;
        assert_eq!(sampler.to_string(), "parentbased_traceidratio");
        for sampler in [
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ] {
            let args = parse(&["--traces-sampler", sampler]);
            assert_eq!(args.traces_sampler.to_string(), sampler);
        }
        for ratio in ["-0.1", "1.1", "NaN", "a"] {
            let arguments = ["test", "--traces-sampler-arg", ratio];
            assert!(Command::try_parse_from(arguments).is_err(), "{ratio}");
        }
    }

    #[test]
    fn endpoint_is_an_http_address_or_nothing() {
        let endpoint = |text: &str| {
            let otlp_endpoint = Some(Secret::from(text.to_owned()));
            TraceArgs {
                otlp_endpoint,
                ..TraceArgs::default()
            }
            .endpoint()
        };
        assert!(endpoint("http://collector:4318").unwrap().is_some());
        assert!(
            endpoint("https://collector.example/otlp")
                .unwrap()
                .is_some()
        );
        assert!(endpoint(" ").unwrap().is_none());
        for text in ["collector:4317", "grpc://collector:4317", "http://", "4318"] {
            let error = endpoint(text).unwrap_err().to_string();
            assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{error}");
        }
    }

    #[test]
    fn headers_are_decoded_and_errors_hide_their_values() {
        let headers = |text: &str| {
            let otlp_headers = Some(Secret::from(text.to_owned()));
            TraceArgs {
                otlp_headers,
                ..TraceArgs::default()
            }
            .headers()
        };
        let parsed = headers("authorization=Bearer%20abc, x-tenant=a=b,").unwrap();
        assert_eq!(parsed["authorization"], "Bearer abc");
        assert_eq!(parsed["x-tenant"], "a=b");
        for text in ["s3cret", "a b=s3cret", "x=s3cret%00", "x="] {
            let error = format!("{:#}", headers(text).unwrap_err());
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
