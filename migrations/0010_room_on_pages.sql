-- Rows of read tables that change over and over find room for their next version
-- on their own page: then no index has to know of it (a heap-only tuple).

alter table read.reader_days set (fillfactor = 70);
alter table read.reader_hours set (fillfactor = 70);
alter table read.days set (fillfactor = 50);
do $$
declare
    partition regclass;
begin
    for partition in select partitions_of('read.history') loop
        execute format('alter table %s set (fillfactor = 70)', partition);
    end loop;
end $$;

-- How a table's pages are filled, as `create table` takes it; `like` leaves it out.
create function storage_of(source regclass) returns text
language sql stable set search_path = pg_catalog as $$
    select coalesce(' with (' || array_to_string(reloptions, ', ') || ')', '')
    from pg_class where oid = source
$$;

-- As before, with the pages filled as those of the tables that they are like.
create or replace function create_shadow(shadow text, tables text[]) returns void
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
            'create table %s (like %s including all excluding indexes)%s%s',
            target, source, coalesce(' partition by ' || pg_get_partkeydef(source), ''),
            public.storage_of(source)
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
            select relname, pg_get_expr(relpartbound, oid) as bound,
                public.storage_of(oid) as storage
            from pg_class where oid in (select public.partitions_of(source))
        loop
            execute format(
                'create table %I.%I (like %s including all)%s', shadow, part.relname, target, part.storage
            );
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

-- As before, with room on the pages of what changes.
create or replace function create_month_partitions(parent regclass, ahead int) returns int
language plpgsql as $$
declare
    month date;
    partition text;
    created int := 0;
begin
    perform pg_advisory_xact_lock(7340003);
    for month in
        select generate_series(
            date_trunc('month', now() at time zone 'UTC') - interval '2 months',
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead),
            interval '1 month'
        )::date
    loop
        -- Beside its parent, whatever the connection looks into first.
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
