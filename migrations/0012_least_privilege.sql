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
            'append_events', 'erase_reader', 'erase_sessions', 'overwrite_events',
            'create_month_partitions'
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
