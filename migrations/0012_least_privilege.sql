-- Least privilege: processes connect with roles that own nothing. grants.sql lists what
-- each role may do. For what needs more rights than that, a role calls one of these
-- functions, which run with the rights of the owner. Their `search_path` is fixed and ends
-- with `pg_temp`: otherwise a caller could put a temporary table in the place of a table
-- that the function names.

do $$
declare
    name regprocedure;
begin
    for name in
        select oid from pg_proc
        where pronamespace = 'public'::regnamespace and proname in (
            'append_events', 'erase_reader', 'erase_sessions', 'overwrite_events'
        )
    loop
        execute format('alter function %s security definer set search_path = public, pg_temp', name);
    end loop;
    for name in
        select oid from pg_proc
        where pronamespace = 'public'::regnamespace and proname = 'create_shadow'
    loop
        execute format(
            'alter function %s security definer set search_path = pg_catalog, pg_temp', name
        );
    end loop;
end $$;

-- Refuses names of schemas that do not contain copies of read tables. The functions below
-- drop what they are given.
create function check_copy(schema text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if schema !~ '^(replay|verify|retired)_[a-z_]+$' then
        raise exception 'the schema % contains no copies of read tables', schema
            using errcode = 'insufficient_privilege';
    end if;
end $$;

-- Drops a schema of `create_shadow`, if it exists.
create function drop_shadow(shadow text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform public.check_copy(shadow);
    execute format('drop schema if exists %I cascade', shadow);
end $$;

-- Creates a shadow with empty tables, in the place of one with the same name. `label`
-- becomes the comment of the schema; null: no comment. Roles that may use the schema
-- `read` may use the shadow.
create function create_shadow(shadow text, tables text[], label text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    grantee text;
begin
    perform public.drop_shadow(shadow);
    perform public.create_shadow(shadow, tables);
    execute format('comment on schema %I is %L', shadow, label);
    for grantee in
        select acl.grantee::regrole from pg_namespace, aclexplode(nspacl) as acl
        where nspname = 'read' and acl.grantee <> nspowner and acl.grantee <> 0
            and acl.privilege_type = 'USAGE'
    loop
        execute format('grant usage on schema %I to %s', shadow, grantee);
    end loop;
end $$;

-- Updates the planner's statistics of the tables of a shadow.
create function analyze_shadow(shadow text, tables text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    perform public.check_copy(shadow);
    foreach name in array tables loop
        execute format('analyze %I.%I', shadow, name);
    end loop;
end $$;

-- Drops a table that `swap_shadow` has retired, if it exists, and the schema if it has no
-- more tables. Fails if another object depends on it.
create function drop_retired(retired text, name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform public.check_copy(retired);
    execute format('drop table if exists %I.%I', retired, name);
    if not exists (select from pg_class where relnamespace = to_regnamespace(retired)) then
        execute format('drop schema if exists %I', retired);
    end if;
end $$;

-- Drops a month of the history. The caller has removed its sessions from the totals.
create function drop_history_month(month text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if month !~ '^history_\d{4}_\d{2}$' then
        raise exception 'the history has no month %', month using errcode = 'insufficient_privilege';
    end if;
    execute format('alter table read.history detach partition read.%I', month);
    execute format('drop table read.%I', month);
end $$;

-- As before, for schemas with copies of read tables only.
create or replace function swap_shadow(shadow text, retired text, tables text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    name text;
    moved regclass;
begin
    perform public.check_copy(shadow);
    perform public.check_copy(retired);
    execute format('create schema %I', retired);
    foreach name in array tables loop
        foreach moved in array array(
            select public.partitions_of(format('read.%I', name)::regclass)
        ) || format('read.%I', name)::regclass loop
            execute format('alter table %s set schema %I', moved, retired);
        end loop;
        foreach moved in array array(
            select public.partitions_of(format('%I.%I', shadow, name)::regclass)
        ) || format('%I.%I', shadow, name)::regclass loop
            execute format('alter table %s set schema read', moved);
        end loop;
    end loop;
end $$;

-- As before, for the two tables with monthly partitions only: the owner would otherwise
-- evaluate the index expressions of a caller's table.
create or replace function create_month_partitions(parent regclass, ahead int) returns int
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    month date;
    partition text;
    created int := 0;
begin
    if parent not in ('public.events'::regclass, 'read.history'::regclass) then
        raise exception '% has no monthly partitions', parent using errcode = 'insufficient_privilege';
    end if;
    perform pg_advisory_xact_lock(7340003);
    for month in
        select generate_series(
            date_trunc('month', now() at time zone 'UTC') - interval '2 months',
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead),
            interval '1 month'
        )::date
    loop
        -- In the schema of its parent, with any search path.
        select format('%s.%I', relnamespace::regnamespace, relname || to_char(month, '"_"YYYY"_"MM'))
        into partition from pg_class where oid = parent;
        if to_regclass(partition) is null then
            -- Events never change; rows of read tables do, and find room beside them.
            execute format(
                'create table %s (like %s including all)%s', partition, parent,
                case when parent <> 'events'::regclass then ' with (fillfactor = 70)' else '' end
            );
            if parent = 'events'::regclass then
                -- Row triggers come with the attachment, statement triggers do not.
                execute format(
                    'create trigger events_order before insert on %s
                        for each statement execute function events_take_order_lock()', partition);
                execute format(
                    'create trigger events_no_truncate before truncate on %s
                        for each statement execute function events_refuse_change()', partition);
            end if;
            execute format(
                'alter table %s attach partition %s for values from (%L) to (%L)',
                parent, partition, month_bound(month), month_bound((month + interval '1 month')::date)
            );
            created := created + 1;
        end if;
    end loop;
    return created;
end $$;

-- The sessions of which a stored response contains the state. A deletion of sessions then
-- finds the responses without reading them: that took seconds for a reader with 50 MB of
-- responses. Null for responses of the earlier release.
alter table idempotency_keys add column session_ids text[];

-- As before. It also stores which sessions a response contains: those with an event of
-- the command, and those that the command has seen.
create or replace function append_events(
    event_commands int[],
    session_ids text[],
    sequences bigint[],
    aggregate_types text[],
    event_types text[],
    event_versions text[],
    payloads text[],
    metadatas text[],
    claim_commands int[],
    claim_readers uuid[],
    claims_expected text[],
    claims_next text[],
    claims_expected_newest timestamptz[],
    claims_next_newest timestamptz[],
    seen_commands int[],
    seen_sessions text[],
    seen_sequences bigint[],
    key_commands int[],
    key_readers uuid[],
    keys text[],
    fingerprints bytea[],
    answers text[]
) returns table (refused int[], positions bigint[])
language plpgsql security definer set search_path = public, pg_temp
-- A new partition has no statistics yet. The look-ups below must not be planned as
-- sequential scans, because the partition will contain millions of rows.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    no int[] := '{}';
    more int[];
    written bigint[];
begin
    -- Before the look-ups: each statement of this function sees everything that was
    -- committed before the statement began. So a check under the lock stays true until
    -- this transaction is visible to the next holder.
    perform pg_advisory_xact_lock(7340001);

    -- A session's first event in the batch follows the last one in the log, any other
    -- the one before it. A scalar subquery, so that it stays one index probe per
    -- session. The collation is that of the index, and the cheapest.
    select coalesce(array_agg(distinct e.command), '{}') into no
    from (
        select e.command, e.session_id, e.nth,
            lag(e.nth) over (partition by e.session_id collate "C" order by e.ordinal) as before
        from unnest(event_commands, session_ids, sequences) with ordinality
            as e (command, session_id, nth, ordinal)
    ) as e
    where e.nth <> 1 + coalesce(
        e.before,
        (
            select events.sequence from events
            where events.aggregate_id = e.session_id
            order by events.sequence desc
            limit 1
        ),
        0
    );

    if cardinality(seen_commands) > 0 then
        no := no || (
            select coalesce(array_agg(s.command), '{}')
            from unnest(seen_commands, seen_sessions, seen_sequences) as s (command, session_id, nth)
            where s.nth is distinct from (
                select events.sequence from events
                where events.aggregate_id = s.session_id
                order by events.sequence desc
                limit 1
            )
            -- An earlier command of the batch changes the session.
            or exists (
                select from unnest(event_commands, session_ids) as e (command, session_id)
                where e.session_id = s.session_id and e.command < s.command
            )
        );
    end if;

    if cardinality(claim_commands) > 0 then
        no := no || (
            select coalesce(array_agg(c.command), '{}')
            from (
                select *, row_number() over (partition by c.reader_id order by c.ordinal) as nth
                from unnest(claim_commands, claim_readers, claims_expected, claims_expected_newest)
                    with ordinality as c (command, reader_id, expected, expected_newest, ordinal)
            ) as c
            where c.nth > 1
            or (
                select claims.session_id from claims where claims.reader_id = c.reader_id
            ) is distinct from c.expected
            or c.expected is null and (
                select newest_observations.observed_at from newest_observations
                where newest_observations.reader_id = c.reader_id
            ) is distinct from c.expected_newest
        );
    end if;

    if cardinality(key_commands) > 0 then
        no := no || (
            select coalesce(array_agg(k.command), '{}')
            from (
                select *, row_number() over (partition by k.reader_id, k.key order by k.ordinal) as nth
                from unnest(key_commands, key_readers, keys) with ordinality
                    as k (command, reader_id, key, ordinal)
            ) as k
            where k.nth > 1 or (
                select true from idempotency_keys
                where idempotency_keys.reader_id = k.reader_id and idempotency_keys.key = k.key
            )
        );
    end if;

    -- A command with an event after one of a refused command was decided on a state
    -- that will not exist.
    while cardinality(no) > 0 loop
        select array_agg(distinct later.command) into more
        from unnest(event_commands, session_ids) with ordinality
            as refused (command, session_id, ordinal)
        join unnest(event_commands, session_ids) with ordinality
            as later (command, session_id, ordinal)
            on later.session_id = refused.session_id and later.ordinal > refused.ordinal
        where refused.command = any (no) and later.command <> all (no);
        exit when more is null;
        no := no || more;
    end loop;

    if cardinality(key_commands) > 0 then
        insert into idempotency_keys (reader_id, key, fingerprint, answer, session_ids)
        select k.reader_id, k.key, k.fingerprint, k.answer::json,
            coalesce(of_command.session_ids, '{}')
        from unnest(key_commands, key_readers, keys, fingerprints, answers)
            as k (command, reader_id, key, fingerprint, answer)
        left join (
            select named.command, array_agg(distinct named.session_id) as session_ids
            from (
                select * from unnest(event_commands, session_ids)
                union all
                select * from unnest(seen_commands, seen_sessions)
            ) as named (command, session_id)
            group by named.command
        ) as of_command on of_command.command = k.command
        where k.command <> all (no);
    end if;

    if cardinality(claim_commands) > 0 then
        delete from claims
        using unnest(claim_commands, claim_readers, claims_next) as c (command, reader_id, next)
        where claims.reader_id = c.reader_id
            and c.next is null
            and c.command <> all (no);
        insert into claims (reader_id, session_id)
        select c.reader_id, c.next
        from unnest(claim_commands, claim_readers, claims_expected, claims_next)
            as c (command, reader_id, expected, next)
        where c.next is not null and c.next is distinct from c.expected and c.command <> all (no)
        on conflict (reader_id) do update set session_id = excluded.session_id;
        insert into newest_observations (reader_id, observed_at)
        select c.reader_id, c.next_newest
        from unnest(claim_commands, claim_readers, claims_next_newest)
            as c (command, reader_id, next_newest)
        where c.next_newest is not null and c.command <> all (no)
        on conflict (reader_id) do update set observed_at = excluded.observed_at
            where newest_observations.observed_at < excluded.observed_at;
    end if;

    with inserted as (
        insert into events (
            aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
        )
        select e.session_id, e.nth, e.aggregate_type, e.event_type, e.event_version,
            e.payload::json, e.metadata::json
        from unnest(
            event_commands, session_ids, sequences, aggregate_types, event_types, event_versions,
            payloads, metadatas
        ) with ordinality
            as e (command, session_id, nth, aggregate_type, event_type, event_version, payload,
                metadata, ordinal)
        where e.command <> all (no)
        -- Global positions are drawn in this order.
        order by e.ordinal
        returning global_position
    )
    select coalesce(array_agg(global_position order by global_position), '{}') into written
    from inserted;

    return query select no, written;
end $$;

-- Erases at most `most` sessions of a reader: those after the session `after`, in the order
-- of their ids. The caller repeats this from the last session until there is none. One
-- transaction for all sessions would hold the order lock for seconds, and no other command
-- could be appended.
--
-- Returns the last session that it has looked at, or null if there was none; how many
-- sessions it erased; and the global position of the last event, or null. Sessions that
-- the reader starts meanwhile may stay. `overwrite_events` must follow.
create function erase_reader_part(
    reader uuid,
    after text,
    most int,
    at timestamptz,
    type_of_aggregate text,
    version_of_event text,
    tombstone text
) returns table (last_session text, sessions bigint, last_position bigint)
language plpgsql security definer
set search_path = public, pg_temp
-- See append_events.
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    ids text[];
    done text[];
    position_of_last bigint;
begin
    -- Before the order lock, which stops all writers.
    ids := array(
        select distinct aggregate_id from events
        where event_type = 'SessionStarted' and payload ->> 'reader_id' = reader::text
            and aggregate_id > after collate "C"
        order by aggregate_id
        limit most
    );
    -- Stored responses contain the reader's data. Refusals are stored without a session.
    delete from idempotency_keys where reader_id = reader;
    if cardinality(ids) = 0 then
        delete from newest_observations
        where reader_id = reader and not exists (select from claims where reader_id = reader);
        return query select null::text, 0::bigint, null::bigint;
        return;
    end if;
    -- As in erase_reader.
    perform pg_advisory_xact_lock(7340001);
    select appended.erased, appended.last_position into done, position_of_last
    from append_tombstones(ids, type_of_aggregate, version_of_event, tombstone) as appended;
    delete from claims where reader_id = reader and session_id = any (ids);
    -- Again: an append may have stored a response since.
    delete from idempotency_keys where reader_id = reader;
    if cardinality(done) > 0 then
        insert into erasures (reader_id, erased_at, all_erased_at, sessions)
        values (reader, at, at, cardinality(done))
        on conflict (reader_id) do update
        set erased_at = excluded.erased_at, all_erased_at = excluded.all_erased_at,
            sessions = erasures.sessions + excluded.sessions, done_at = null;
    end if;
    return query select ids[cardinality(ids)], cardinality(done)::bigint, position_of_last;
end $$;

-- Every role may execute a new function. Here and not in grants.sql alone: that file runs
-- later, and only if `migrate` may create roles.
do $$
declare
    name regprocedure;
begin
    for name in
        select oid from pg_proc
        where pronamespace = 'public'::regnamespace and prosecdef
            and pg_has_role(proowner, 'usage')
    loop
        execute format('revoke execute on function %s from public', name);
    end loop;
end $$;
