//! Jobs run on request, and leases name their holders.

use super::*;

pub async fn jobs(contract: &Contract) {
    let app = App::start().await;
    let operator = app.operator();
    contract.check("jobs", 200, &get(&operator, "/jobs").await);
    contract.check("access", 200, &get(&operator, "/access").await);
    let processes = get(&operator, "/processes").await;
    contract.check("processes", 200, &processes);
    let name = &processes.body["this"]["name"];
    let mut leases = processes.body["leases"].as_array().unwrap().iter();
    let relay = leases.next().unwrap();
    assert_eq!(relay["kind"], "relay");
    let holders = leases.filter(|lease| !lease["holder"].is_null());
    assert!(holders.clone().count() > 0, "{}", processes.body);
    for lease in holders {
        assert_eq!(lease["holder"], *name);
    }
    let run = post(&operator, "/jobs/partitions/run").await;
    contract.check("runJob", 202, &run);
    assert_eq!(run.body["name"], "partitions");
    let stats = get(&operator, "/reading-sessions/cleanup-stats?hours=1").await;
    contract.check("cleanupStats", 200, &stats);
    let cleanup = post(&operator, "/reading-sessions/cleanup").await;
    contract.check("cleanup", 200, &cleanup);
    assert_eq!(cleanup.body["complete"], true);
}
