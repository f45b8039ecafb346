//! A reader with an e-reader app.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

/// A reader and the token of their app.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Who.
    pub id: Uuid,
    /// The app's token.
    pub token: String,
    client: reqwest::Client,
    url: String,
}

/// What the service answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; null when it is not JSON.
    pub body: Value,
}

impl Answer {
    /// What came back.
    ///
    /// # Errors
    /// When it did not come whole.
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

    /// A header's value; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The body of a success.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }

    /// The `detail` of a problem with this status.
    #[track_caller]
    #[must_use]
    pub fn problem(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(
            self.body["request_id"],
            self.headers["x-request-id"].to_str().unwrap()
        );
        self.body["detail"]
            .as_str()
            .expect("a problem has a detail")
            .to_owned()
    }
}

/// The id in a session's answer.
#[track_caller]
#[must_use]
pub fn id(session: &Value) -> Uuid {
    session["id"]
        .as_str()
        .expect("a session has an id")
        .parse()
        .unwrap()
}

/// A client for plain HTTP. One that reads the machine's certificates takes
/// its time, and fails where there are none.
#[must_use]
pub fn client() -> reqwest::Client {
    reqwest::Client::builder()
        // Answers are looked at as they are sent. The load's crates bring this.
        .no_gzip()
        .tls_certs_only([])
        .build()
        .unwrap()
}

impl Reader {
    pub(crate) fn new(client: reqwest::Client, url: String, id: Uuid, token: String) -> Self {
        Self {
            id,
            token,
            client,
            url,
        }
    }

    /// A reader with a valid token and no service to call yet.
    #[must_use]
    pub fn of(id: Uuid) -> Self {
        Self::new(client(), String::new(), id, crate::app::token(id))
    }

    /// The same reader, calling another process.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// A request to a path below `/api/v1/reading-sessions`.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.try_call(method, path, body).await.unwrap()
    }

    /// As [`Reader::call`], when the service may be gone.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<Answer> {
        Answer::read(self.request(method, path, body).send().await?).await
    }

    /// As [`Reader::call`], with more headers.
    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<Value>,
    ) -> Answer {
        self.try_call_with(method, path, headers, body)
            .await
            .unwrap()
    }

    /// As [`Reader::call_with`], when the service may be gone.
    ///
    /// # Errors
    /// When there was no answer.
    pub async fn try_call_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<Value>,
    ) -> reqwest::Result<Answer> {
        let mut request = self.request(method, path, body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(request.send().await?).await
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

    /// Starts a book from its beginning.
    pub async fn start(&self, book: Uuid) -> Answer {
        self.start_with(json!({ "book_id": book })).await
    }

    /// Starts as the body says.
    pub async fn start_with(&self, body: Value) -> Answer {
        self.call(Method::POST, "/start", Some(body)).await
    }

    /// Moves the position.
    pub async fn update(&self, session: Uuid, position: f64) -> Answer {
        self.update_with(session, json!({ "current_position": position }))
            .await
    }

    /// Moves the position as the body says.
    pub async fn update_with(&self, session: Uuid, body: Value) -> Answer {
        self.call(Method::PUT, &format!("/{session}/update"), Some(body))
            .await
    }

    /// Ends where the body says.
    pub async fn end(&self, session: Uuid, body: Value) -> Answer {
        self.call(Method::PUT, &format!("/{session}/end"), Some(body))
            .await
    }

    /// Sends updates as one batch.
    pub async fn batch(&self, updates: Value) -> Answer {
        let body = json!({ "updates": updates });
        self.call(Method::POST, "/batch-update", Some(body)).await
    }

    /// The active session.
    pub async fn active(&self) -> Answer {
        self.call(Method::GET, "/active", None).await
    }

    /// A session by its id.
    pub async fn session(&self, session: Uuid) -> Answer {
        self.call(Method::GET, &format!("/{session}"), None).await
    }

    /// A page of the history; `query` with its question mark.
    pub async fn history(&self, query: &str) -> Answer {
        self.call(Method::GET, &format!("/history{query}"), None)
            .await
    }

    /// Has all that is the reader's erased.
    pub async fn erase(&self) -> Answer {
        let path = format!("?confirm={}", self.id);
        self.call(Method::DELETE, &path, None).await
    }

    /// The days with reading.
    pub async fn days(&self) -> Answer {
        self.call(Method::GET, "/stats/daily", None).await
    }
}
