-- The complete list of the rights of each role. `migrate` runs this file after the migrations,
-- each time, in one transaction and as the owner. It removes every other right of these
-- roles, so a right that was granted by hand does not last.
--
-- `reading_monitor` has none here: it reads the statistics of the server (pg_monitor).
--
-- No role may change the schema, and none may update, delete or truncate `events`, or
-- insert into it: only functions of the owner append and erase.

do $$
declare
    relation regclass;
    routine regprocedure;
begin
    for relation in
        select c.oid from pg_class as c
        where relowner = 'reading_owner'::regrole and relkind in ('r', 'p', 'S')
            and relnamespace in ('public'::regnamespace, 'read'::regnamespace)
    loop
        execute format(
            'revoke all on %s from public, reading_api, reading_relay, reading_projections,
                reading_operator, reading_jobs, reading_service, reading_monitor', relation
        );
    end loop;
    for routine in
        select oid from pg_proc
        where proowner = 'reading_owner'::regrole and pronamespace = 'public'::regnamespace
    loop
        execute format(
            'revoke all on function %s from public, reading_api, reading_relay,
                reading_projections, reading_operator, reading_jobs, reading_service,
                reading_monitor', routine
        );
    end loop;
end $$;
alter default privileges revoke execute on functions from public;

grant usage on schema read to reading_api, reading_projections;

-- Every process compares the version of the schema with its build.
grant select on _sqlx_migrations to reading_api, reading_relay, reading_projections;

-- Publishes the log.
grant select on events to reading_relay;

-- Appends and erases on behalf of readers, and serves queries. Requests runs of jobs.
grant select on events, claims, newest_observations, idempotency_keys, erasures, erased_sessions,
    projections, jobs, job_runs, retention to reading_api;
grant select on read.history, read.history_totals, read.session_days, read.days, read.checkpoints,
    read.dead_letters to reading_api;
grant delete on idempotency_keys to reading_api;
grant update (asked) on jobs to reading_api;
-- A query that waits for its rows makes the worker write them.
grant update (window_closed_until) on projections to reading_api;

-- Writes the read tables and the cache. Requests a warm-up.
grant select on events, claims, projections, retention to reading_projections;
grant select, insert, update, delete on read.history, read.history_totals, read.session_days,
    read.days, read.checkpoints, read.dead_letters to reading_projections;
grant update on projections to reading_projections;
grant select, update (asked) on jobs to reading_projections;

-- Replays, verifies, exports and erases. It may do what projections may do.
grant select on newest_observations, idempotency_keys, erasures, erased_sessions, job_runs, audit
    to reading_operator;
grant delete on idempotency_keys to reading_operator;

-- Runs the background jobs, which append events, and the admin API. It may do what
-- operators may do.
grant update on jobs, retention to reading_jobs;
grant insert, delete on job_runs to reading_jobs;

do $$
declare
    grantee text;
    routine regprocedure;
begin
    for grantee, routine in
        select role, oid
        from (values
            ('audit_begin', 'reading_api'), ('audit_begin', 'reading_projections'),
            ('audit_end', 'reading_api'), ('audit_end', 'reading_projections'),
            ('append_events', 'reading_api'), ('append_events', 'reading_jobs'),
            ('erase_reader_part', 'reading_api'), ('erase_reader_part', 'reading_operator'),
            ('erase_sessions', 'reading_api'), ('erase_sessions', 'reading_operator'),
            ('overwrite_events', 'reading_operator'),
            ('partitions_of', 'reading_operator'), ('month_bound', 'reading_operator'),
            ('create_shadow', 'reading_operator'), ('analyze_shadow', 'reading_operator'),
            ('compare_shadow', 'reading_operator'), ('swap_shadow', 'reading_operator'),
            ('drop_shadow', 'reading_operator'), ('drop_retired', 'reading_operator'),
            ('create_month_partitions', 'reading_jobs'), ('drop_history_month', 'reading_jobs')
        ) as allowed (name, role)
        -- An overload with fewer arguments is for the earlier release. Its role is a
        -- member of the owner.
        cross join lateral (
            select oid from pg_proc
            where proname = name and pronamespace = 'public'::regnamespace
            order by pronargs desc
            limit 1
        ) as newest
    loop
        execute format('grant execute on function %s to %I', routine, grantee);
    end loop;
end $$;
