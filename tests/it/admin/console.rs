//! The pages of the console need no token, contain no data and load nothing else.

use reqwest::Response;

use super::*;

async fn fetch(app: &App, path: &str) -> Response {
    let request = app.client.get(format!("{}{path}", app.admin_url));
    request.send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// The addresses in the attributes `src` and `href` of a page.
fn addresses(html: &str) -> Vec<String> {
    let parts = html.split(['"']).collect::<Vec<_>>();
    let addresses = parts.windows(2).filter_map(|pair| {
        let is_address = pair[0].ends_with("src=") || pair[0].ends_with("href=");
        (is_address && pair[1].starts_with('/')).then(|| pair[1].to_owned())
    });
    addresses.collect()
}

#[tokio::test]
async fn pages_have_a_strict_policy_and_immutable_files() {
    let app = App::start().await;
    let page = fetch(&app, "/").await;
    assert_eq!(page.status(), 200);
    let policy = header(&page, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header(&page, "x-content-type-options"), "nosniff");
    assert_eq!(header(&page, "referrer-policy"), "no-referrer");
    assert_eq!(header(&page, "cache-control"), "no-cache");
    let tag = header(&page, "etag").to_owned();
    let known = app.client.get(&app.admin_url).header("if-none-match", &tag);
    assert_eq!(known.send().await.unwrap().status(), 304);

    let html = page.text().await.unwrap();
    let addresses = addresses(&html);
    assert_eq!(addresses.len(), 6, "{html}");
    for address in addresses {
        let file = fetch(&app, &address).await;
        assert_eq!(file.status(), 200, "{address}");
        assert!(header(&file, "cache-control").ends_with("immutable"));
        assert!(header(&file, "content-type").starts_with("text/"));
        // A page of another build must not get files of this one.
        let other = address.replace(tag.trim_matches('"'), "0123456789abcdef");
        assert_eq!(fetch(&app, &other).await.status(), 404);
    }
    let outside = format!("/console/{}/../index.html", tag.trim_matches('"'));
    assert_eq!(fetch(&app, &outside).await.status(), 404);
}
