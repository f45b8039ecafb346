-- What operators need of projections: who works on each and how it goes, events
-- that cannot be applied, and replays into tables of their own.

-- One row a projection. Its worker holds a lease and says here how it goes; an
-- operator pauses it here. The lease is for peace alone: what makes a step exact
-- is that its checkpoint moves by compare-and-set.
create table projections (
    projection text primary key,
    paused boolean not null default false,
    holder text,
    held_until timestamptz not null default '-infinity',
    -- What the holder said last.
    reported_at timestamptz,
    global_position bigint not null default 0,
    -- Since it took the lease.
    events bigint not null default 0,
    row_writes bigint not null default 0,
    events_per_second double precision not null default 0,
    failing boolean not null default false,
    last_error text,
    last_error_at timestamptz,
    -- How far a replay has come, and when it said so; null when there is none.
    replay_position bigint,
    replay_reported_at timestamptz
) with (fillfactor = 50);

insert into projections (projection) values ('history'), ('daily_stats'), ('active_sessions');

-- Events that a projection could not apply. Written with the checkpoint that
-- passes them, and a part of the read side: a replay makes its own.
create table read.dead_letters (
    projection text not null,
    global_position bigint not null,
    session_id text collate "C" not null,
    sequence bigint not null,
    -- parked: cannot be applied. waiting: follows one of its session that cannot.
    -- discarded: left out for good, by an operator.
    state text not null
        constraint dead_letter_state check (state in ('parked', 'waiting', 'discarded')),
    error text not null,
    parked_at timestamptz not null default clock_timestamp(),
    -- How often it was tried, the first time included.
    tries int not null default 1,
    -- An operator wants its session tried again.
    asked boolean not null default false,
    -- Whether NATS has a copy.
    published boolean not null default false,
    primary key (projection, global_position)
);
create index dead_letters_by_session on read.dead_letters (projection, session_id, global_position);
create index dead_letters_unpublished on read.dead_letters (global_position) where not published;

-- Sessions that came to more than ten minutes of active time on the day, and
-- sessions that ended on it.
alter table read.reader_days add column long_sessions bigint not null default 0;
alter table read.reader_days add column ended_sessions bigint not null default 0;
-- The global position of the event that told the time zone: one that is applied
-- late must not tell it again.
alter table read.reader_days add column time_zone_position bigint not null default 0;
alter table read.days add column long_sessions bigint not null default 0;
alter table read.days add column ended_sessions bigint not null default 0;

-- The projection makes all of it again from the log; until then statistics are
-- incomplete.
truncate read.reader_days, read.reader_hours, read.days;
delete from read.checkpoints where projection = 'daily_stats';

-- The partitions of a table, or none.
create function partitions_of(parent regclass) returns setof regclass language sql stable as $$
    select inhrelid::regclass from pg_inherits where inhparent = parent order by inhrelid
$$;

-- Empty tables like those named of `read`, with the same names, columns, indexes,
-- partitions and grants, in a schema of their own. The search path makes Postgres
-- write every name with its schema.
create function create_shadow(shadow text, tables text[]) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    name text;
    source regclass;
    target text;
    index record;
    part record;
    right_ record;
begin
    execute format('create schema %I', shadow);
    foreach name in array tables loop
        source := format('read.%I', name)::regclass;
        target := format('%I.%I', shadow, name);
        execute format(
            'create table %s (like %s including all excluding indexes)%s',
            target, source, coalesce(' partition by ' || pg_get_partkeydef(source), '')
        );
        for index in
            select conname, pg_get_constraintdef(con.oid) as definition, pg_get_indexdef(indexrelid) as ddl
            from pg_index
            left join pg_constraint as con on con.conindid = indexrelid and con.contype in ('p', 'u')
            where indrelid = source
            order by indexrelid
        loop
            if index.conname is not null then
                execute format('alter table %s add constraint %I %s', target, index.conname, index.definition);
            else
                execute regexp_replace(index.ddl, ' ON (ONLY )?read\.', format(' ON %I.', shadow));
            end if;
        end loop;
        for part in
            select relname, pg_get_expr(relpartbound, oid) as bound
            from pg_class where oid in (select public.partitions_of(source))
        loop
            execute format('create table %I.%I (like %s including all)', shadow, part.relname, target);
            execute format('alter table %s attach partition %I.%I %s', target, shadow, part.relname, part.bound);
        end loop;
        for right_ in
            select privilege_type, case grantee when 0 then 'public' else grantee::regrole::text end as who
            from pg_class, aclexplode(relacl) where oid = source and grantee <> relowner
        loop
            execute format('grant %s on %s to %s', right_.privilege_type, target, right_.who);
        end loop;
    end loop;
end $$;

-- Puts the tables of a schema in the place of those of `read`, which go to
-- another one. Whoever calls has locked both.
create function swap_shadow(shadow text, retired text, tables text[]) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    name text;
    moved regclass;
begin
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

-- Compares a table of `read` with the one of the same name in another schema,
-- row by row of the primary key: how many rows both have together, how many of
-- them differ, and the first that do, each as JSON or null where it is missing.
create function compare_shadow(shadow text, name text, most int)
returns table (total bigint, differing bigint, first json)
language plpgsql set search_path = pg_catalog as $$
declare
    keys text;
    joined text;
begin
    select string_agg(format('%I', attname), ', ' order by array_position(indkey::int2[], attnum))
    into keys
    from pg_index
    join pg_attribute on attrelid = indrelid and attnum = any (indkey)
    where indrelid = format('read.%I', name)::regclass and indisprimary;
    joined := format('read.%1$I as l full join %2$I.%1$I as s using (%3$s)', name, shadow, keys);
    execute format(
        'select count(*), count(*) filter (where (l.*) is distinct from (s.*)) from %s', joined
    ) into total, differing;
    execute format(
        'select coalesce(json_agg(d), ''[]'') from (
            select to_json(l) as found, to_json(s) as expected from %s
            where (l.*) is distinct from (s.*) order by %s limit %s
        ) as d', joined, keys, case differing when 0 then 0 else most end
    ) into first;
    return next;
end $$;
