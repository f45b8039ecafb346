-- Rows of a projection can be ahead of its checkpoint.
--
-- A worker keeps position updates in memory for some seconds and writes one row for many of
-- them. Other rows are written at once. Therefore a commit writes rows without moving the
-- checkpoint beyond the first event whose row is still in memory.

-- A random number that every commit, replay and removal of old days replaces. A commit must
-- find the number that its worker has read: two commits can have the same checkpoint, and a
-- crash of Postgres can lose the last commits. Workers of the
-- release before this one read the former name. They fail until their processes are
-- replaced, and must: they insert a session again that is ahead of the checkpoint.
alter table read.checkpoints rename column replays to revision;

-- No row contains an event after this global position.
alter table read.checkpoints add column written_to bigint not null default 0;
update read.checkpoints set written_to = global_position;

-- The global position of the last event that the row contains; 0 in rows of the release
-- before this one. Events up to it that are folded again change nothing.
alter table read.session_days add column complete_to bigint not null default 0;

-- Until this time the worker writes every row at once. A verification sets it, and a query
-- that waits for an update if NATS does not respond.
alter table projections add column window_closed_until timestamptz;

-- Compares a read table with its rebuilt copy. `complete_to` depends on which events were
-- written together, so it may differ.
create or replace function compare_shadow(shadow text, name text, most int)
returns table (total bigint, differing bigint, first json)
language plpgsql set search_path = pg_catalog as $$
declare
    keys text;
    joined text;
    differs text;
begin
    select string_agg(format('%I', attname), ', ' order by array_position(indkey::int2[], attnum))
    into keys
    from pg_index
    join pg_attribute on attrelid = indrelid and attnum = any (indkey)
    where indrelid = format('read.%I', name)::regclass and indisprimary;
    select format(
        'row(%s) is distinct from row(%s)',
        string_agg(format('l.%I', attname), ', ' order by attnum),
        string_agg(format('s.%I', attname), ', ' order by attnum)
    )
    into differs
    from pg_attribute
    where attrelid = format('read.%I', name)::regclass and attnum > 0 and not attisdropped
        and attname <> 'complete_to';
    joined := format('read.%1$I as l full join %2$I.%1$I as s using (%3$s)', name, shadow, keys);
    execute format('select count(*), count(*) filter (where %s) from %s', differs, joined)
    into total, differing;
    execute format(
        'select coalesce(json_agg(d), ''[]'') from (
            select to_json(l) as found, to_json(s) as expected from %s
            where %s order by %s limit %s
        ) as d', joined, differs, keys, case differing when 0 then 0 else most end
    ) into first;
    return next;
end $$;
