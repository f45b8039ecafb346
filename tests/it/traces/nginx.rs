//! deploy/nginx.conf removes the trace context of clients.

use tests::debian;
use tests::nginx::Nginx;

use super::*;

#[tokio::test]
async fn trace_context_of_a_client_does_not_pass_nginx() {
    // Downloads at the first run only, and blocks.
    let program = tokio::task::spawn_blocking(|| debian::program("nginx", "nginx"));
    let program = program.await.unwrap();
    let app = App::start().await;
    let folder = std::env::temp_dir().join(format!("nginx-{}", Uuid::new_v4().simple()));
    let api = app.url.strip_prefix("http://").unwrap();
    let api = api.strip_suffix(PREFIX).unwrap().parse().unwrap();
    let nginx = Nginx::start(&program, &folder, &[api]).await.unwrap();

    let direct = app.reader();
    let url = format!("http://{}{PREFIX}", nginx.http);
    let user = Uuid::new_v4();
    let behind = Reader::new(app.client.clone(), url, user, app::token(user));
    let client = Client::new("01");
    let passed = client.start(&direct).await;
    let removed = client.start(&behind).await;
    let traceparent = format!(r#"{{"traceparent":"{}"}}"#, client.traceparent);
    assert_eq!(metadata(&app, passed).await, [traceparent]);
    assert_eq!(metadata(&app, removed).await, ["{}"]);

    drop(nginx);
    std::fs::remove_dir_all(folder).unwrap();
}
