//! The alerts and dashboards of `deploy`, as the other modules read them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub struct Alert {
    pub name: String,
    pub expression: String,
    pub severity: String,
    pub annotations: Value,
}

/// An expression of a panel.
pub struct PanelExpression {
    /// The dashboard and the panel.
    pub place: String,
    pub expression: String,
}

pub fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

pub fn text(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap()
}

pub fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&text(file)).unwrap()
}

/// The names of the files in a folder, sorted.
fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(path(folder)).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The files with rules: name and content.
pub fn rule_files() -> Vec<(String, Value)> {
    yaml_files("deploy/prometheus/rules")
}

/// The files with tests of alerts: name and content.
pub fn alert_tests() -> Vec<(String, Value)> {
    yaml_files("deploy/prometheus/tests")
}

fn yaml_files(folder: &str) -> Vec<(String, Value)> {
    let files = names(folder).into_iter().map(|name| {
        let content = yaml(&format!("{folder}/{name}"));
        (name, content)
    });
    files.collect()
}

/// The rules of all groups in a file.
pub fn rules(file: &Value) -> impl Iterator<Item = &Value> {
    let groups = file["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap())
}

pub fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn alerts() -> Vec<Alert> {
    let files = rule_files();
    let rules = files.iter().flat_map(|(_, content)| rules(content));
    rules
        .filter(|rule| rule["alert"].is_string())
        .map(|rule| Alert {
            name: string(&rule["alert"]),
            expression: string(&rule["expr"]),
            severity: string(&rule["labels"]["severity"]),
            annotations: rule["annotations"].clone(),
        })
        .collect()
}

/// The dashboards: file name and content.
pub fn dashboards() -> Vec<(String, Value)> {
    let folder = "deploy/grafana/dashboards";
    let files = names(folder).into_iter().map(|name| {
        let content = serde_json::from_str(&text(&format!("{folder}/{name}"))).unwrap();
        (name, content)
    });
    files.collect()
}

pub fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

/// The expressions of all panels of all dashboards.
pub fn panel_expressions() -> Vec<PanelExpression> {
    let mut expressions = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                expressions.push(PanelExpression {
                    place: format!("{file}: {}", panel["title"]),
                    expression: string(&target["expr"]),
                });
            }
        }
    }
    expressions
}

/// The names of our own metrics in an expression. Names of recorded series contain a
/// colon and are no metrics.
pub fn own_metrics(expression: &str) -> BTreeSet<&str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| !word.contains(':'))
        .filter(|word| word.starts_with("reading_sessions_") || word.starts_with("process_"))
        .collect()
}

/// The anchors of the sections of the runbook, as GitHub builds them from headings.
pub fn runbook_sections() -> BTreeSet<String> {
    let runbook = text("docs/operations/runbook.md");
    let headings = runbook.lines().filter(|line| line.starts_with("##"));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
