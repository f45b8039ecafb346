//! Writes `nats/schemas` from the code: the envelope and the current version of each
//! event. Does not change older versions. `make schemas` runs it.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats/schemas");
    std::fs::create_dir_all(&folder)?;
    for (name, schema) in messaging::json_schema::documents() {
        std::fs::write(folder.join(name), format!("{schema:#}\n"))?;
    }
    Ok(())
}
