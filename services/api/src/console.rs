//! The pages of the console, on the admin listener. They are static and contain no data:
//! their scripts call the admin API with the operator's token.
//!
//! The files are in `services/api/console` and need no build step. They load nothing from
//! other hosts.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::problem::Problem;

const INDEX: &str = include_str!("../console/index.html");

/// The files that the page loads, by their path.
const FILES: [(&str, &str); 23] = [
    (
        "styles/page.css",
        include_str!("../console/styles/page.css"),
    ),
    (
        "styles/controls.css",
        include_str!("../console/styles/controls.css"),
    ),
    (
        "styles/parts.css",
        include_str!("../console/styles/parts.css"),
    ),
    ("main.js", include_str!("../console/main.js")),
    ("token.js", include_str!("../console/token.js")),
    ("store.js", include_str!("../console/store.js")),
    ("api.js", include_str!("../console/api.js")),
    ("live.js", include_str!("../console/live.js")),
    ("format.js", include_str!("../console/format.js")),
    ("components.js", include_str!("../console/components.js")),
    ("chart.js", include_str!("../console/chart.js")),
    (
        "pages/overview.js",
        include_str!("../console/pages/overview.js"),
    ),
    (
        "pages/projections.js",
        include_str!("../console/pages/projections.js"),
    ),
    (
        "pages/dead-letters.js",
        include_str!("../console/pages/dead-letters.js"),
    ),
    ("pages/jobs.js", include_str!("../console/pages/jobs.js")),
    (
        "pages/sessions.js",
        include_str!("../console/pages/sessions.js"),
    ),
    (
        "pages/readers.js",
        include_str!("../console/pages/readers.js"),
    ),
    (
        "pages/processes.js",
        include_str!("../console/pages/processes.js"),
    ),
    ("pages/audit.js", include_str!("../console/pages/audit.js")),
    (
        "pages/id-form.js",
        include_str!("../console/pages/id-form.js"),
    ),
    (
        "vendor/htm-preact.js",
        include_str!("../console/vendor/htm-preact.js"),
    ),
    (
        "vendor/uPlot.js",
        include_str!("../console/vendor/uPlot.js"),
    ),
    (
        "vendor/uPlot.css",
        include_str!("../console/vendor/uPlot.css"),
    ),
];

/// Only files of this listener, and no inline scripts or styles. `data:` is for the empty
/// icon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The address of a file contains the version, so its content never changes.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// The page, as served. Its `ETag` is the version of all files.
struct Console {
    version: String,
    index: String,
}

/// The pages at `/`.
pub fn router() -> Router {
    let version = version();
    let console = Console {
        index: INDEX.replace("{version}", &version),
        version,
    };
    Router::new()
        .route("/", get(index))
        .route("/console/{version}/{*path}", get(file))
        .with_state(Arc::new(console))
}

/// A hash of the page and all its files.
fn version() -> String {
    let mut context = digest::Context::new(&SHA256);
    for (path, text) in [("index.html", INDEX)].iter().chain(&FILES) {
        for part in [path, text] {
            context.update(part.as_bytes());
            context.update(b"\0");
        }
    }
    let hash = context.finish();
    hex(&hash.as_ref()[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

async fn index(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    let tag = format!("\"{}\"", console.version);
    let known = headers.get(header::IF_NONE_MATCH);
    let is_known = known.is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let html = "text/html; charset=utf-8";
        ([(header::CONTENT_TYPE, html)], console.index.clone()).into_response()
    };
    let tag = HeaderValue::try_from(tag).expect("a hash is plain ASCII");
    response.headers_mut().insert(header::ETAG, tag);
    with_headers(response, "no-cache")
}

/// A page of another build finds none of its files here and must be loaded again.
async fn file(
    State(console): State<Arc<Console>>,
    Path((version, path)): Path<(String, String)>,
) -> Response {
    let found = FILES.iter().find(|(known, _)| *known == path);
    match found.filter(|_| version == console.version) {
        Some((_, text)) => {
            let headers = [(header::CONTENT_TYPE, content_type(&path))];
            with_headers((headers, *text).into_response(), IMMUTABLE)
        }
        None => Problem::not_found().into_response(),
    }
}

fn with_headers(mut response: Response, cache: &'static str) -> Response {
    let headers: [(HeaderName, &str); 2] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, cache),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn content_type(path: &str) -> &'static str {
    if path
        .rsplit_once('.')
        .is_some_and(|(_, extension)| extension == "css")
    {
        "text/css; charset=utf-8"
    } else {
        "text/javascript; charset=utf-8"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{self, PathBuf};

    use super::*;

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("console")
    }

    /// The scripts and stylesheets below a folder.
    fn files_below(folder: &path::Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .flat_map(|path| {
                if path.is_dir() {
                    files_below(&path)
                } else {
                    vec![path]
                }
            })
            .filter(|path| {
                let extension = path.extension().and_then(|extension| extension.to_str());
                matches!(extension, Some("js" | "css"))
            })
            .collect()
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let files = files_below(&folder());
        let files: BTreeSet<&str> = files
            .iter()
            .map(|path| path.strip_prefix(folder()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(files, FILES.iter().map(|(path, _)| *path).collect());
    }

    #[test]
    fn vendored_files_have_their_checksums() {
        let list = fs::read_to_string(folder().join("VENDORED.md")).unwrap();
        let vendored = FILES.iter().filter(|(path, _)| path.starts_with("vendor/"));
        let mut count = 0;
        for (path, text) in vendored {
            let row = list.lines().find(|row| row.contains(&format!("({path})")));
            let row = row.unwrap_or_else(|| panic!("VENDORED.md does not list {path}"));
            let hash = hex(digest::digest(&SHA256, text.as_bytes()).as_ref());
            assert!(row.contains(&hash), "the checksum of {path} is {hash}");
            count += 1;
        }
        assert_eq!(count, 3);
    }

    #[test]
    fn page_has_no_inline_code_and_loads_only_its_own_files() {
        for line in INDEX.lines() {
            if line.contains("<script") || line.contains("rel=\"stylesheet\"") {
                assert!(line.contains("\"/console/{version}/"), "{line}");
                assert!(!line.contains("<script>"), "{line}");
            }
            assert!(
                !line.contains("<style") && !line.contains("style="),
                "{line}"
            );
        }
        for (path, text) in FILES
            .iter()
            .filter(|(path, _)| !path.starts_with("vendor/"))
        {
            assert!(
                !text.contains("http://") && !text.contains("https://"),
                "{path}"
            );
        }
    }
}
