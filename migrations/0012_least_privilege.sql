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
