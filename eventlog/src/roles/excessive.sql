with used as (
    select current_user::name as role
    union
    select usename from pg_stat_activity
    where $1
        and datname = current_database()
        and application_name like 'reading-sessions-%'
        and application_name <> 'reading-sessions-migrations'
        and usename is not null
)
select
    role::text as "role!",
    case
        when rolsuper then 'is a superuser'
        when pg_has_role(role, relowner, 'usage') then 'owns the log'
        when rolcreaterole then 'may create roles'
        else 'may change events without the functions of the owner'
    end as "rights!"
from used
join pg_roles on rolname = role
join pg_class on pg_class.oid = 'public.events'::regclass
where rolsuper
    or rolcreaterole
    or pg_has_role(role, relowner, 'usage')
    or exists (
        select from (
            select pg_class.oid
            union all
            select inhrelid from pg_inherits where inhparent = pg_class.oid
        ) as log (oid)
        where has_table_privilege(role, log.oid, 'insert, update, delete, truncate')
            or has_any_column_privilege(role, log.oid, 'insert, update')
    )
order by role
