//! Writes `nats/schemas` from the code: the envelope, and each event in today's
//! version. Leaves older versions as they are. `make schemas` runs it.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats/schemas");
    std::fs::create_dir_all(&folder)?;
    for (name, schema) in eventlog::schema::documents() {
        std::fs::write(folder.join(name), format!("{schema:#}\n"))?;
    }
    Ok(())
}
