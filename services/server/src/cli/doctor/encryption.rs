//! The check of how the connections to the servers are protected.

use super::{DoctorArgs, Finding, Status};
use crate::connect::encryption::{Protection, by_server};

pub(super) fn check(args: &DoctorArgs) -> Finding {
    let (mut problems, mut others) = (Vec::new(), Vec::new());
    for (server, protection) in by_server(&args.database, &args.nats, &args.redis) {
        match protection {
            Protection::Weak(problem) => problems.push(problem),
            Protection::Verified => others.push(format!("{server} verified")),
            Protection::Local => others.push(format!("{server} on this machine")),
        }
    }
    Finding::from_problems("encryption", Status::Warning, &problems, others.join(", "))
}
