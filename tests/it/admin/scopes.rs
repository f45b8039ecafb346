//! `reading:admin:read` allows the calls that change nothing, `reading:admin` allows all.

use super::*;

#[tokio::test]
async fn read_only_token_may_look_and_not_act() {
    let app = App::start().await;
    let viewer = app.viewer();
    for (operation, method, call) in CALLS {
        if operation == "live" {
            continue;
        }
        let response = viewer.call(method.clone(), call, None).await;
        if method == Method::GET {
            assert_ne!(response.status, 403, "{operation}: {}", response.body);
        } else {
            assert_eq!(
                response.header("www-authenticate"),
                r#"Bearer error="insufficient_scope", scope="reading:admin""#
            );
            let detail = response.problem(403);
            assert!(detail.ends_with("the scope reading:admin"), "{detail}");
        }
    }
    assert_eq!(get(&viewer, "/access").await.ok()["may_act"], false);
    assert_eq!(get(&app.operator(), "/access").await.ok()["may_act"], true);
    let status = projection_status(&viewer, "history").await;
    assert_ne!(status["state"], "paused");
    assert_eq!(get(&viewer, "/audit").await.ok()["entries"], json!([]));

    let reader = app.reader();
    let reader = reader.at(&format!("{}/api/v1/admin", app.admin_url));
    let refused = get(&reader, "/jobs").await;
    assert_eq!(
        refused.header("www-authenticate"),
        r#"Bearer error="insufficient_scope", scope="reading:admin:read""#
    );
    let _ = refused.problem(403);
}
