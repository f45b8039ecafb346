//! Who comes in: a caller with a good token, as often as the limits allow.
//! Nothing behind this is reached by anyone else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;

use super::auth::{Caller, Keys};
use super::middleware::{InnerService, Middleware, Next};
use super::problem::Problem;
use super::rate_limit::{Client, Limiter, Preset};
use super::in_flight::InFlightLimit;

/// What admission needs to know; cheap to clone.
#[derive(Clone)]
pub struct Admission {
    keys: Keys,
    limiter: Arc<Limiter>,
    trusted_proxies: Arc<[IpNet]>,
}

impl Admission {
    /// Admits callers with a token by these keys.
    #[must_use]
    pub fn new(keys: Keys, limiter: Limiter, trusted_proxies: &[IpNet]) -> Self {
        Self {
            keys,
            limiter: Arc::new(limiter),
            trusted_proxies: trusted_proxies.into(),
        }
    }

    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| Problem::unauthorized("Not authenticated"))?;
        Ok(self.keys.verify(token).await?)
    }
}

/// Lets client apps in, for calls that share a preset: with a good token, and as
/// often as the reader's limit allows. Failures are counted by address.
#[derive(Clone)]
pub struct RequireReader {
    /// Who may come in.
    pub admission: Admission,
    /// Where they are served.
    pub places: InFlightLimit,
    /// How often.
    pub preset: Preset,
}

impl Middleware for RequireReader {
    async fn answer<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let Self {
            admission,
            places,
            preset,
        } = self;
        // What may be called is no secret, and a browser asks without a token.
        if request.method() == Method::OPTIONS {
            return Anonymous { admission, places }.answer(request, next).await;
        }
        admission.admit(&places, preset, Ok, request, next).await
    }
}

/// Lets operators in: with a good token that says it is one's.
#[derive(Clone)]
pub struct RequireAdmin {
    /// Who may come in.
    pub admission: Admission,
    /// Where they are served.
    pub places: InFlightLimit,
}

impl Middleware for RequireAdmin {
    async fn answer<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let only = |caller: Caller| {
            if caller.admin {
                Ok(caller)
            } else {
                Err(Problem::forbidden("This needs an operator's token"))
            }
        };
        let admitted =
            self.admission
                .admit(&self.places, Preset::LowFrequency, only, request, next);
        admitted.await
    }
}

/// Lets anyone in, for what needs no token.
#[derive(Clone)]
pub struct Anonymous {
    /// Who may come in.
    pub admission: Admission,
    /// Where they are served.
    pub places: InFlightLimit,
}

impl Middleware for Anonymous {
    async fn answer<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let Self { admission, places } = self;
        let client = Client::at(address(&request, &admission.trusted_proxies));
        let permit = admission.limiter.check(Preset::Normal, client).await;
        let mut response = if permit.retry_after.is_some() {
            Problem::too_many_requests(permit.retry_after_seconds()).into_response()
        } else {
            places.work(next.run(request)).await
        };
        permit.write(response.headers_mut());
        response
    }
}

impl Admission {
    /// Lets a caller in who has a good token, a place under the limit, and is one
    /// of `only`; then there must be a place to work.
    async fn admit<S: InnerService>(
        &self,
        places: &InFlightLimit,
        preset: Preset,
        only: impl FnOnce(Caller) -> Result<Caller, Problem>,
        mut request: Request,
        next: Next<S>,
    ) -> Response {
        let caller = self.caller(request.headers()).await;
        let (preset, client) = match &caller {
            Ok(caller) => (preset, Client::Reader(caller.reader_id)),
            Err(problem) => {
                // That the keys are not there yet is not the caller's failure.
                let failed = problem.status() == StatusCode::UNAUTHORIZED;
                let preset = if failed { Preset::Auth } else { preset };
                let address = address(&request, &self.trusted_proxies);
                (preset, Client::at(address))
            }
        };
        let permit = self.limiter.check(preset, client).await;
        let mut response = if permit.retry_after.is_some() {
            Problem::too_many_requests(permit.retry_after_seconds()).into_response()
        } else {
            match caller.and_then(only) {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    places.work(next.run(request)).await
                }
                Err(problem) => problem.into_response(),
            }
        };
        permit.write(response.headers_mut());
        response
    }
}

/// Where the request comes from: the peer, or who a trusted proxy says. Of
/// `X-Forwarded-For` only the part is believed that trusted proxies wrote:
/// from the right, up to the first address that is not one of theirs.
fn address(request: &Request, trusted: &[IpNet]) -> IpAddr {
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
        && let Some(before) = hops.pop().and_then(hop)
    {
        address = before;
    }
    address
}

/// An address, as proxies write it; some add the port.
fn hop(text: &[u8]) -> Option<IpAddr> {
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
    #[case::nobody_is_trusted("9.9.9.9", "1.1.1.1", "", "9.9.9.9")]
    #[case::by_one_proxy("10.0.0.1", "1.1.1.1", "10.0.0.0/8", "1.1.1.1")]
    #[case::what_the_client_forged_is_left("10.0.0.1", "6.6.6.6, 1.1.1.1", "10.0.0.0/8", "1.1.1.1")]
    #[case::by_two_proxies("10.0.0.1", "1.1.1.1, 10.0.0.2", "10.0.0.0/8", "1.1.1.1")]
    #[case::an_untrusted_peer_says_nothing("8.8.8.8", "1.1.1.1", "10.0.0.0/8", "8.8.8.8")]
    #[case::nonsense("10.0.0.1", "unknown", "10.0.0.0/8", "10.0.0.1")]
    #[case::after_nonsense("10.0.0.1", "é, 1.1.1.1", "10.0.0.0/8", "1.1.1.1")]
    #[case::with_a_port("10.0.0.1", "1.1.1.1:5678", "10.0.0.0/8", "1.1.1.1")]
    #[case::ipv6_with_a_port("10.0.0.1", "[2001:db8::1]:443", "10.0.0.0/8", "2001:db8::1")]
    #[case::nothing("10.0.0.1", "", "10.0.0.0/8", "10.0.0.1")]
    fn the_address_is_what_trusted_proxies_saw(
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
            address(&request, &trusted),
            expected.parse::<IpAddr>().unwrap()
        );
    }
}
