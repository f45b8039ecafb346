//! What can be checked of alerts and dashboards without running the service.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use tests::debian;

use super::files::{
    alert_tests, alerts, dashboards, own_metrics, panel_expressions, panels, path, rule_files,
    rules, runbook_sections, string, text, yaml,
};

const RUNBOOK: &str = "docs/operations/runbook.md#";

/// Units of Grafana that the dashboards use.
const UNITS: [&str; 8] = [
    "short",
    "percentunit",
    "s",
    "reqps",
    "ops",
    "cps",
    "bytes",
    "Bps",
];

/// Grafana's grid.
const COLUMNS: u64 = 24;

#[test]
fn each_alert_has_texts_and_an_existing_section_of_the_runbook() {
    let sections = runbook_sections();
    let alerts = alerts();
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names.len(), alerts.len(), "names are unique");
    for alert in &alerts {
        let name = &alert.name;
        let is_known = ["critical", "warning"].contains(&alert.severity.as_str());
        assert!(is_known, "{name}: {}", alert.severity);
        for text in ["summary", "description"] {
            let text = string(&alert.annotations[text]);
            assert!(text.ends_with(['.', '}']), "{name}: {text:?}");
        }
        let runbook = string(&alert.annotations["runbook"]);
        let section = runbook.strip_prefix(RUNBOOK);
        let section = section.unwrap_or_else(|| panic!("{name}: {runbook:?}"));
        assert!(sections.contains(section), "{name}: no section {section}");
    }
}

#[test]
fn each_panel_has_a_description_a_unit_and_existing_links() {
    let sections = runbook_sections();
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(string(&dashboard["uid"])), "{file}: uid");
        assert_eq!(
            dashboard["templating"]["list"][0]["name"], "runbook",
            "{file}"
        );
        let mut ids = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for panel in panels(&dashboard) {
            let place = format!("{file}: {}", panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: id");
            assert!(string(&panel["description"]).ends_with('.'), "{place}");
            assert_eq!(panel["datasource"]["uid"], "prometheus", "{place}");
            let unit = string(&panel["fieldConfig"]["defaults"]["unit"]);
            assert!(UNITS.contains(&unit.as_str()), "{place}: {unit:?}");
            for link in panel["links"].as_array().into_iter().flatten() {
                let url = string(&link["url"]);
                let section = url.strip_prefix("${runbook:raw}#").unwrap_or_default();
                assert!(sections.contains(section), "{place}: {url}");
            }
            assert_targets(panel, &place);
            assert_cells(panel, &mut cells, &place);
        }
    }
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yaml");
    assert_eq!(source["datasources"][0]["uid"], "prometheus");
}

fn assert_targets(panel: &Value, place: &str) {
    let targets = panel["targets"].as_array().unwrap();
    let references: BTreeSet<String> = targets.iter().map(|t| string(&t["refId"])).collect();
    assert_eq!(references.len(), targets.len(), "{place}: refId");
    for target in targets {
        let is_series = panel["type"] == "timeseries";
        assert_eq!(target["legendFormat"].is_string(), is_series, "{place}");
        assert_eq!(target["instant"] == true, !is_series, "{place}");
    }
}

/// Panels must not overlap, and must fit into the grid.
fn assert_cells(panel: &Value, cells: &mut BTreeSet<(u64, u64)>, place: &str) {
    let grid = |name: &str| panel["gridPos"][name].as_u64().unwrap();
    let (x, y, width, height) = (grid("x"), grid("y"), grid("w"), grid("h"));
    assert!(x + width <= COLUMNS, "{place}: beyond the grid");
    for column in x..x + width {
        for row in y..y + height {
            assert!(cells.insert((column, row)), "{place}: overlaps");
        }
    }
}

#[test]
fn each_metric_of_ours_is_documented() {
    let reference = text("docs/reference/metrics.md");
    let alerts = alerts();
    let panels = panel_expressions();
    let expressions = alerts.iter().map(|alert| &alert.expression);
    let expressions = expressions.chain(panels.iter().map(|panel| &panel.expression));
    for name in expressions.flat_map(|expression| own_metrics(expression)) {
        // The reference names a histogram without the suffixes of its series.
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        let is_documented = [Some(name), histogram]
            .into_iter()
            .flatten()
            .any(|name| reference.contains(&format!("`{name}")));
        assert!(is_documented, "{name}");
    }
}

#[test]
fn expected_processes_are_those_of_compose() {
    let files = rule_files();
    let expected: BTreeMap<String, String> = files
        .iter()
        .flat_map(|(_, file)| rules(file))
        .filter(|rule| rule["record"] == "reading_sessions:expected_processes")
        .map(|rule| (string(&rule["labels"]["role"]), string(&rule["expr"])))
        .collect();
    let compose = text("compose.yaml");
    for role in ["api", "relay", "projections", "jobs"] {
        let (_, service) = compose.split_once(&format!("\n  {role}:\n")).unwrap();
        let (service, _) = service.split_once("\n\n").unwrap();
        let replicas = service.split_once("replicas: ");
        let count = replicas.map_or("1", |(_, rest)| rest.split_once(' ').unwrap().0);
        assert_eq!(expected[role], format!("vector({count})"), "{role}");
    }
    assert_eq!(expected.len(), 4);
}

fn promtool(arguments: &[&str]) {
    let promtool = debian::program("promtool", "prometheus");
    let folder = path("deploy/prometheus");
    let output = Command::new(promtool)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{arguments:?}: {text}");
}

#[test]
fn promtool_accepts_the_configuration() {
    promtool(&["check", "config", "prometheus.yml"]);
}

#[test]
fn each_alert_is_quiet_fires_and_resolves_with_its_real_durations() {
    let topics = alert_tests();
    let all = topics
        .iter()
        .flat_map(|(_, file)| file["tests"].as_array().unwrap());
    for alert in alerts() {
        let test = all.clone().find(|test| test["name"] == alert.name.as_str());
        let test = test.unwrap_or_else(|| panic!("{} has no test", alert.name));
        let checks = test["promql_expr_test"].as_array().unwrap().iter();
        let fires: Vec<bool> = checks
            .inspect(|check| assert!(string(&check["expr"]).contains(&alert.name)))
            .map(|check| {
                check["exp_samples"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
            })
            .collect();
        assert_eq!(fires, [false, true, false], "{}", alert.name);
    }
    for (name, _) in &topics {
        promtool(&["test", "rules", &format!("tests/{name}")]);
    }
}
