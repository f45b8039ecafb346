//! A reader. Calls the API with the token of an e-reader app.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub struct Reader {
    pub id: Uuid,
    pub token: String,
    client: reqwest::Client,
    url: String,
}

/// A response that was received in full.
#[derive(Debug)]
pub struct ApiResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body, or null if it is not JSON.
    pub body: Value,
}

impl ApiResponse {
    /// Reads the whole body.
    ///
    /// # Errors
    /// If the body is incomplete.
    pub async fn read(response: Response) -> reqwest::Result<Self> {
        let status = response.status();
        let headers = response.headers().clone();
        let bytes = response.bytes().await?;
        Ok(Self {
            status,
            headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        })
    }

    /// The value of a header, or an empty string if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the body.
    ///
    /// # Panics
    /// If the status is not a success.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }

    /// Returns the `detail` of a problem document with this status.
    ///
    /// # Panics
    /// If the response has another status or is no problem document.
    #[track_caller]
    #[must_use]
    pub fn problem(self, status: u16) -> String {
        self.problem_member(status, "detail")
    }

    /// Returns the `code` of a problem document with this status.
    ///
    /// # Panics
    /// If the response has another status or is no problem document.
    #[track_caller]
    #[must_use]
    pub fn problem_code(self, status: u16) -> String {
        self.problem_member(status, "code")
    }

    #[track_caller]
    fn problem_member(self, status: u16, member: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(
            self.body["request_id"],
            self.headers["x-request-id"].to_str().unwrap()
        );
        let text = self.body[member].as_str();
        text.unwrap_or_else(|| panic!("a problem has a {member}: {}", self.body))
            .to_owned()
    }
}

/// The id of a session in a response body.
#[track_caller]
#[must_use]
pub fn id(session: &Value) -> Uuid {
    session["id"]
        .as_str()
        .expect("a session has an id")
        .parse()
        .unwrap()
}

/// An HTTP client without TLS certificates. Reading the certificates of the
/// machine is slow, and fails where there are none.
#[must_use]
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        // Tests check the bytes that the server sends. A dependency of the load
        // generator turns the `gzip` feature on.
        .no_gzip()
        .tls_certs_only([])
        .build()
        .unwrap()
}

impl Reader {
    #[must_use]
    pub fn new(client: reqwest::Client, url: String, id: Uuid, token: String) -> Self {
        Self {
            id,
            token,
            client,
            url,
        }
    }

    /// A reader with a valid token. Set the service to call with [`Reader::at`].
    #[must_use]
    pub fn with_id(id: Uuid) -> Self {
        Self::new(client(), String::new(), id, crate::app::token(id))
    }

    /// The same reader, calling the service at another URL.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// Sends a request to a path below `/api/v1/reading-sessions`.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> ApiResponse {
        self.try_call(method, path, body).await.unwrap()
    }

    /// Like [`Reader::call`], for a service that may have stopped.
    ///
    /// # Errors
    /// If no complete response arrives.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<ApiResponse> {
        ApiResponse::read(self.request(method, path, body).send().await?).await
    }

    /// Like [`Reader::call`], with additional headers.
    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<Value>,
    ) -> ApiResponse {
        self.try_call_with(method, path, headers, body)
            .await
            .unwrap()
    }

    /// Like [`Reader::call_with`], for a service that may have stopped.
    ///
    /// # Errors
    /// If no complete response arrives.
    pub async fn try_call_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<Value>,
    ) -> reqwest::Result<ApiResponse> {
        let mut request = self.request(method, path, body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ApiResponse::read(request.send().await?).await
    }

    fn request(&self, method: Method, path: &str, body: Option<Value>) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token);
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
    }

    /// Starts a session at position 0.
    pub async fn start(&self, book: Uuid) -> ApiResponse {
        self.start_with(json!({ "book_id": book })).await
    }

    pub async fn start_with(&self, body: Value) -> ApiResponse {
        self.call(Method::POST, "/start", Some(body)).await
    }

    pub async fn update(&self, session: Uuid, position: f64) -> ApiResponse {
        self.update_with(session, json!({ "current_position": position }))
            .await
    }

    pub async fn update_with(&self, session: Uuid, body: Value) -> ApiResponse {
        self.call(Method::PUT, &format!("/{session}/update"), Some(body))
            .await
    }

    pub async fn end(&self, session: Uuid, body: Value) -> ApiResponse {
        self.call(Method::PUT, &format!("/{session}/end"), Some(body))
            .await
    }

    /// Sends updates as one batch.
    pub async fn batch(&self, updates: Value) -> ApiResponse {
        let body = json!({ "updates": updates });
        self.call(Method::POST, "/batch-update", Some(body)).await
    }

    /// Uploads whole sessions or parts of them. The device's clock is right unless the
    /// body contains `sent_at`.
    pub async fn sync(&self, mut body: Value) -> ApiResponse {
        if body["sent_at"].is_null() {
            body["sent_at"] = json!(eventlog::clock::now());
        }
        self.call(Method::POST, "/sync", Some(body)).await
    }

    /// Corrects an ended session.
    pub async fn correct(&self, session: Uuid, body: Value) -> ApiResponse {
        self.call(Method::PATCH, &format!("/{session}"), Some(body))
            .await
    }

    /// Deletes a session, or whatever the rest of the path and the query name.
    pub async fn delete(&self, path: &str) -> ApiResponse {
        self.call(Method::DELETE, path, None).await
    }

    pub async fn active(&self) -> ApiResponse {
        self.call(Method::GET, "/active", None).await
    }

    pub async fn session(&self, session: Uuid) -> ApiResponse {
        self.call(Method::GET, &format!("/{session}"), None).await
    }

    /// Requests a page of the history. `query` includes the question mark.
    pub async fn history(&self, query: &str) -> ApiResponse {
        self.call(Method::GET, &format!("/history{query}"), None)
            .await
    }

    /// Requests the erasure of all data of the reader.
    pub async fn erase(&self) -> ApiResponse {
        let path = format!("?confirm={}", self.id);
        self.call(Method::DELETE, &path, None).await
    }

    /// Requests the daily statistics.
    pub async fn days(&self) -> ApiResponse {
        self.call(Method::GET, "/stats/daily", None).await
    }
}
