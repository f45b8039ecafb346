//! The images and containers of compose.yaml and Dockerfile: pinned images, no
//! privileges, and no password for two purposes.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use uuid::Uuid;

const COMPOSE: &str = include_str!("../../compose.yaml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");
const EXAMPLE_ENV: &str = include_str!("../../deploy/example.env");
const DEPLOY: &str = include_str!("../../docs/operations/deploy.md");

/// Variables of the images themselves. Their values come from other variables.
const IMAGE_VARIABLES: [&str; 2] = ["GF_SECURITY_ADMIN_PASSWORD", "REDIS_PASSWORD"];

/// The images that are pulled from a registry, as written.
fn images() -> Vec<&'static str> {
    let compose = COMPOSE
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "))
        // Built by compose from the Dockerfile.
        .filter(|image| *image != "reading-sessions:latest");
    let dockerfile = DOCKERFILE
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
        .filter_map(|from| from.split(' ').next());
    compose.chain(dockerfile).collect()
}

/// The name and the lines of each service of compose.yaml.
fn services() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut services: Vec<(&str, Vec<&str>)> = Vec::new();
    let lines = COMPOSE
        .lines()
        .skip_while(|line| *line != "services:")
        .skip(1);
    for line in lines.take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let name = line
            .strip_prefix("  ")
            .and_then(|name| name.strip_suffix(':'));
        match name.filter(|name| !name.starts_with([' ', '#'])) {
            Some(name) => services.push((name, Vec::new())),
            None => {
                if let Some((_, lines)) = services.last_mut() {
                    lines.push(line.trim());
                }
            }
        }
    }
    services
}

/// The lines of an `x-` block of compose.yaml.
fn block(name: &str) -> Vec<&'static str> {
    let lines = COMPOSE.lines().skip_while(|line| !line.starts_with(name));
    let lines = lines.skip(1).take_while(|line| line.starts_with("  "));
    lines.map(str::trim).collect()
}

#[test]
fn each_image_is_pinned_by_tag_and_digest() {
    let images = images();
    assert_eq!(images.len(), 12);
    for image in images {
        let (tag, digest) = image.split_once("@sha256:").unwrap_or_default();
        assert!(tag.contains(':'), "{image} has no tag");
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        assert!(
            digest.len() == 64 && digest.chars().all(is_hex),
            "{image} has no digest"
        );
    }
}

#[test]
fn no_container_has_capabilities_or_writable_files() {
    let server = block("x-server:");
    for setting in [
        "cap_drop: [ALL]",
        "read_only: true",
        "security_opt: [\"no-new-privileges:true\"]",
    ] {
        assert!(server.contains(&setting), "{setting}");
    }
    assert!(block("x-role:").contains(&"<<: *server"));
    let services = services();
    assert_eq!(services.len(), 16);
    for (name, lines) in services {
        let is_hardened = lines.contains(&"<<: *server") || lines.contains(&"<<: *role");
        assert!(is_hardened, "{name}");
        for weaker in [
            "cap_add",
            "privileged",
            "read_only",
            "security_opt",
            "network_mode",
        ] {
            let weakens = lines.iter().any(|line| line.starts_with(weaker));
            assert!(!weakens, "{name}: {weaker}");
        }
    }
}

#[test]
fn each_password_has_its_own_required_variable() {
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let names = |text: &str| -> BTreeSet<String> {
        text.split(|c| !is_name(c))
            .filter(|name| name.ends_with("_PASSWORD") && !IMAGE_VARIABLES.contains(name))
            .map(str::to_owned)
            .collect()
    };
    let example = names(EXAMPLE_ENV);
    assert_eq!(names(COMPOSE), example);
    assert_eq!(names(DEPLOY), example);
    let (_, commands) = COMPOSE.split_once("services:\n").unwrap();
    for name in &example {
        // Compose fails on a missing variable instead of using an empty password.
        assert!(COMPOSE.contains(&format!("${{{name}:?")), "{name}");
        assert!(commands.contains(name.as_str()), "{name}");
        for default in [":-", "-", ":=", "="] {
            assert!(!COMPOSE.contains(&format!("${{{name}{default}")), "{name}");
        }
    }
}

/// Compose ignores such a variable in settings.env.
#[test]
fn each_variable_without_a_value_is_in_the_template() {
    let names = COMPOSE
        .lines()
        .filter_map(|line| line.trim_start().strip_suffix(':'))
        .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
    let names: Vec<&str> = names.collect();
    assert!(names.contains(&"JWT_SECRET"), "{names:?}");
    for name in names {
        let is_listed = EXAMPLE_ENV.lines().any(|line| {
            line.trim_start_matches('#')
                .starts_with(&format!("{name}="))
        });
        assert!(is_listed, "{name}");
    }
}

/// A copy of the files that `dev/pin` changes, and a registry that returns `digest`.
fn copy(digest: &str) -> PathBuf {
    let copy = std::env::temp_dir().join(format!("pin-{}", Uuid::new_v4().simple()));
    let executable = |file: &Path, text: &str| {
        std::fs::write(file, text).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    for folder in ["dev", "bin"] {
        std::fs::create_dir_all(copy.join(folder)).unwrap();
    }
    executable(&copy.join("dev/pin"), include_str!("../../dev/pin"));
    executable(
        &copy.join("bin/docker"),
        &format!("#!/bin/sh\necho '{digest}'\n"),
    );
    std::fs::write(copy.join("compose.yaml"), COMPOSE).unwrap();
    std::fs::write(copy.join("Dockerfile"), DOCKERFILE).unwrap();
    copy
}

async fn pin(copy: &Path) -> bool {
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", copy.join("bin").display());
    let output = Command::new(copy.join("dev/pin"))
        .env("PATH", path)
        .output()
        .await
        .unwrap();
    output.status.success()
}

#[tokio::test]
async fn pin_writes_the_digests_of_the_registry_and_changes_nothing_else() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let pinned = copy(&digest);
    assert!(pin(&pinned).await);
    for (file, before) in [("compose.yaml", COMPOSE), ("Dockerfile", DOCKERFILE)] {
        let mut expected = before.to_owned();
        for image in images() {
            let (tag, _) = image.split_once('@').unwrap();
            expected = expected.replace(image, &format!("{tag}@{digest}"));
        }
        let after = std::fs::read_to_string(pinned.join(file)).unwrap();
        assert_eq!(after, expected);
        assert_ne!(after, before);
    }
    std::fs::remove_dir_all(pinned).unwrap();

    // An answer without a digest is an error.
    let failed = copy("not found");
    assert!(!pin(&failed).await);
    let after = std::fs::read_to_string(failed.join("compose.yaml")).unwrap();
    assert_eq!(after, COMPOSE);
    std::fs::remove_dir_all(failed).unwrap();
}
