//! Admits requests: authentication, then the rate limit, then the limit of
//! requests in flight. A rejected request reaches no handler.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use domain::ReaderId;
use ipnet::IpNet;

use crate::auth::{AdminAccess, Caller, TokenVerifier, VerifyError};
use crate::in_flight::InFlightLimit;
use crate::middleware::{InnerService, Middleware, Next};
use crate::problem::{Problem, ProblemCode};
use crate::rate_limit::{ClientKey, Limiter, Preset, RateLimitDecision, ReaderCheck};

/// The shared state of the middlewares in this module; clones are cheap.
#[derive(Clone)]
pub struct Admission {
    verifier: TokenVerifier,
    limiter: Arc<Limiter>,
    trusted_proxies: Arc<[IpNet]>,
}

impl Admission {
    #[must_use]
    pub fn new(verifier: TokenVerifier, limiter: Limiter, trusted_proxies: &[IpNet]) -> Self {
        Self {
            verifier,
            limiter: Arc::new(limiter),
            trusted_proxies: trusted_proxies.into(),
        }
    }
}

/// The bearer token of a request.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<&str, Problem> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(Problem::missing_token)
}

/// Requires a valid token, and applies the rate limit of the reader. Requests
/// without a valid token count against the rate limit of their address.
#[derive(Clone)]
pub struct RequireReader {
    pub admission: Admission,
    pub in_flight: InFlightLimit,
    pub preset: Preset,
    /// The key in Redis that the handler of a GET request without parameters reads first.
    /// It is read with the rate limit, and the handler finds it as [`Prefetched`].
    ///
    /// [`Prefetched`]: crate::rate_limit::Prefetched
    pub prefetch: Option<fn(ReaderId) -> String>,
}

impl Middleware for RequireReader {
    async fn handle<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let Self {
            admission,
            in_flight,
            preset,
            prefetch,
        } = self;
        // Browsers send OPTIONS without a token, and the allowed methods are not
        // secret.
        if request.method() == Method::OPTIONS {
            return Anonymous {
                admission,
                in_flight,
            }
            .handle(request, next)
            .await;
        }
        let is_plain_get = request.method() == Method::GET && request.uri().query().is_none();
        let check = ReaderCheck {
            preset,
            is_command: is_command(request.method()),
            prefetch: prefetch.filter(|_| is_plain_get),
        };
        admission.admit(&in_flight, check, Ok, request, next).await
    }
}

/// Requires a token for the admin API. Requests that change nothing need less access than
/// others, and have the rate limit of readers: the pages of the console send many.
#[derive(Clone)]
pub struct RequireAdmin {
    pub admission: Admission,
    pub in_flight: InFlightLimit,
}

impl Middleware for RequireAdmin {
    async fn handle<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let (required, preset) = if request.method().is_safe() {
            (AdminAccess::Read, Preset::Normal)
        } else {
            (AdminAccess::Act, Preset::LowFrequency)
        };
        let authorize = |caller: Caller| {
            if caller.admin >= required {
                Ok(caller)
            } else {
                Err(Problem::insufficient_scope(required))
            }
        };
        let check = ReaderCheck {
            preset,
            is_command: false,
            prefetch: None,
        };
        let mut response = self
            .admission
            .admit(&self.in_flight, check, authorize, request, next)
            .await;
        Problem::explain_missing_right(&mut response);
        response
    }
}

/// Requires no token, and applies the rate limit of the client's address.
#[derive(Clone)]
pub struct Anonymous {
    pub admission: Admission,
    pub in_flight: InFlightLimit,
}

impl Middleware for Anonymous {
    async fn handle<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let Self {
            admission,
            in_flight,
        } = self;
        let address = client_address(&request, &admission.trusted_proxies);
        let client = ClientKey::from_address(address);
        let decision = admission.limiter.check(Preset::Normal, client).await;
        if decision.retry_after.is_some() {
            return rate_limited(&decision);
        }
        let mut response = in_flight.run(next.run(request)).await;
        decision.write_headers(response.headers_mut());
        response
    }
}

impl Admission {
    /// `authorize` rejects callers whose token is valid but not sufficient.
    async fn admit<S: InnerService>(
        &self,
        in_flight: &InFlightLimit,
        check: ReaderCheck,
        authorize: impl FnOnce(Caller) -> Result<Caller, Problem>,
        mut request: Request,
        next: Next<S>,
    ) -> Response {
        let address = ClientKey::from_address(client_address(&request, &self.trusted_proxies));
        let caller = match self.authenticate(request.headers(), address).await {
            Ok(caller) => caller,
            Err(Refusal::Counted(problem, decision)) => return refused(problem, &decision),
            Err(Refusal::Uncounted(problem)) => {
                return self.unauthenticated(problem, address).await;
            }
        };
        let reader_id = caller.reader_id;
        let (decision, prefetched) = self.limiter.check_reader(reader_id, check).await;
        if decision.retry_after.is_some() {
            return rate_limited(&decision);
        }
        if decision.budget_renews_in.is_some() {
            return refused(Problem::quota(decision.retry_after_seconds()), &decision);
        }
        let mut response = match authorize(caller) {
            Ok(caller) => {
                if check.is_command
                    && let Some(meter) = self.limiter.meter(reader_id)
                {
                    request.extensions_mut().insert(meter);
                }
                if let Some(prefetched) = prefetched {
                    request.extensions_mut().insert(prefetched);
                }
                request.extensions_mut().insert(caller);
                in_flight.run(next.run(request)).await
            }
            Err(problem) => problem.into_response(),
        };
        decision.write_headers(response.headers_mut());
        response
    }

    /// The response to a request without a valid token.
    async fn unauthenticated(&self, problem: Problem, address: ClientKey) -> Response {
        // The app must refresh its token; this is no attack.
        if problem.code() == ProblemCode::TokenExpired {
            return problem.into_response();
        }
        let decision = self.limiter.check(Preset::Auth, address).await;
        if decision.retry_after.is_none() {
            return refused(problem, &decision);
        }
        let mut response = rate_limited(&decision);
        if let Some(challenge) = problem.challenge() {
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    async fn authenticate(
        &self,
        headers: &HeaderMap,
        address: ClientKey,
    ) -> Result<Caller, Refusal> {
        let token = bearer_token(headers)?;
        let mut verified = self.verifier.verify(token);
        if verified == Err(VerifyError::UnknownKey) {
            // Anyone can write such a token, so waiting for a newer key set counts. It counts
            // less than an invalid token, because the key may be new.
            let decision = self.limiter.check(Preset::Normal, address).await;
            if decision.retry_after.is_some() {
                let problem = Problem::too_many_requests(decision.retry_after_seconds());
                return Err(Refusal::Counted(problem, decision));
            }
            verified = self.verifier.verify_after_refresh(token).await;
            if verified == Err(VerifyError::KeysUnavailable) {
                let problem = VerifyError::KeysUnavailable.into();
                return Err(Refusal::Counted(problem, decision));
            }
        }
        Ok(verified.map_err(Problem::from)?)
    }
}

/// Why a request has no caller.
enum Refusal {
    /// A rate limit has counted the request already.
    Counted(Problem, RateLimitDecision),
    Uncounted(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Uncounted(problem)
    }
}

fn rate_limited(decision: &RateLimitDecision) -> Response {
    refused(
        Problem::too_many_requests(decision.retry_after_seconds()),
        decision,
    )
}

fn refused(problem: Problem, decision: &RateLimitDecision) -> Response {
    let mut response = problem.into_response();
    decision.write_headers(response.headers_mut());
    response
}

/// Whether a reader's request with this method is a command. Erasures and deletions are
/// none: they are possible without a budget.
fn is_command(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// The address of the client: the peer of the connection, or an address from
/// `X-Forwarded-For` if the peer is a trusted proxy.
///
/// Clients can forge `X-Forwarded-For`, and each proxy appends the address of its
/// own peer. This therefore reads the header from the right, and stops at the
/// first address that is not a trusted proxy.
fn client_address(request: &Request, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut address = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| {
            peer.0.ip().to_canonical()
        });
    let forwarded = request.headers().get_all("x-forwarded-for");
    let mut hops: Vec<&[u8]> = forwarded
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .collect();
    while is_trusted(address)
        && let Some(previous) = hops.pop().and_then(parse_hop)
    {
        address = previous;
    }
    address
}

/// Parses an address in `X-Forwarded-For`. Some proxies append the port.
fn parse_hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    Some(address.ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::HeaderValue;
    use rstest::rstest;

    #[rstest]
    #[case::no_trusted_proxy("9.9.9.9", "1.1.1.1", "", "9.9.9.9")]
    #[case::one_proxy("10.0.0.1", "1.1.1.1", "10.0.0.0/8", "1.1.1.1")]
    #[case::forged_entry_is_ignored("10.0.0.1", "6.6.6.6, 1.1.1.1", "10.0.0.0/8", "1.1.1.1")]
    #[case::two_proxies("10.0.0.1", "1.1.1.1, 10.0.0.2", "10.0.0.0/8", "1.1.1.1")]
    #[case::untrusted_peer("8.8.8.8", "1.1.1.1", "10.0.0.0/8", "8.8.8.8")]
    #[case::invalid_entry("10.0.0.1", "unknown", "10.0.0.0/8", "10.0.0.1")]
    #[case::after_invalid_entry("10.0.0.1", "é, 1.1.1.1", "10.0.0.0/8", "1.1.1.1")]
    #[case::with_a_port("10.0.0.1", "1.1.1.1:5678", "10.0.0.0/8", "1.1.1.1")]
    #[case::ipv6_with_a_port("10.0.0.1", "[2001:db8::1]:443", "10.0.0.0/8", "2001:db8::1")]
    #[case::no_header("10.0.0.1", "", "10.0.0.0/8", "10.0.0.1")]
    fn forwarded_address_is_trusted_only_from_proxies(
        #[case] peer: &str,
        #[case] forwarded: &str,
        #[case] trusted: &str,
        #[case] expected: &str,
    ) {
        let trusted: Vec<IpNet> = trusted
            .split_terminator(',')
            .map(|n| n.parse().unwrap())
            .collect();
        let mut request = Request::new(Body::empty());
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        request.extensions_mut().insert(ConnectInfo(peer));
        if !forwarded.is_empty() {
            let value = HeaderValue::from_bytes(forwarded.as_bytes()).unwrap();
            request.headers_mut().insert("x-forwarded-for", value);
        }
        assert_eq!(
            client_address(&request, &trusted),
            expected.parse::<IpAddr>().unwrap()
        );
    }
}
