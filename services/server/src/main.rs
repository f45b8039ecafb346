//! The executable `reading-sessions`. The library contains everything else, so
//! that its code is compiled once for the executable and the tests.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    server::cli::main()
}
