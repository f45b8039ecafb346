//! `GET /admin/heap-profile`
//!
//! The allocator samples allocations only if the process was started with its profiler, so
//! a process without it pays nothing.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use jemalloc_pprof::PROF_CTL;

use crate::problem::{Problem, ProblemCode};

/// pprof is a gzipped protobuf message.
const PPROF: &str = "application/octet-stream";

/// Retrieve a heap profile
///
/// Returns the memory that this process has allocated and not freed, by call stack, in the
/// format of pprof. The process must have been started with
/// `_RJEM_MALLOC_CONF=prof:true`.
#[utoipa::path(
    get,
    path = "/api/v1/admin/heap-profile",
    operation_id = "heapProfile",
    tag = "processes",
    responses((
        status = 200,
        description = "A profile for pprof",
        content_type = "application/octet-stream",
        body = Vec<u8>
    ))
)]
pub async fn handle() -> Result<Response, Problem> {
    let profiler = PROF_CTL.as_ref().ok_or_else(profiler_off)?;
    let dump = tokio::task::spawn_blocking(move || {
        let mut profiler = profiler.blocking_lock();
        profiler.activated().then(|| profiler.dump_pprof())
    });
    let profile = dump
        .await
        .map_err(|error| Problem::broken(&error))?
        .ok_or_else(profiler_off)?
        .map_err(|error| Problem::broken(&*error))?;
    let headers = [
        (header::CONTENT_TYPE, PPROF),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"heap.pb.gz\"",
        ),
    ];
    Ok((headers, profile).into_response())
}

fn profiler_off() -> Problem {
    Problem::new(
        ProblemCode::HeapProfilerOff,
        "The heap profiler is off; start the process with _RJEM_MALLOC_CONF=prof:true",
    )
}
