//! Local times by the rules that the service uses, calculated in another way than the
//! service does.

use std::sync::LazyLock;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use jiff::Timestamp;
use jiff::civil::{self, DateTime as Civil};
use jiff::tz::TimeZone;
use projections::zones::Zones;

static ZONES: LazyLock<Zones> = LazyLock::new(Zones::load);

/// The rules of a zone: an IANA name, or an offset such as `+02:00`.
fn rules(zone: &str) -> TimeZone {
    let name = ZONES.parse(zone);
    ZONES.get(name.expect("an IANA name or an offset").as_str())
}

/// The local date and time in a zone.
#[must_use]
pub fn local(at: DateTime<Utc>, zone: &str) -> NaiveDateTime {
    let nanoseconds = i32::try_from(at.timestamp_subsec_nanos()).unwrap();
    let at = Timestamp::new(at.timestamp(), nanoseconds).unwrap();
    let local: Civil = rules(zone).to_datetime(at);
    let [month, day, hour, minute, second] = [
        local.month(),
        local.day(),
        local.hour(),
        local.minute(),
        local.second(),
    ]
    .map(|part| u32::try_from(part).unwrap());
    let nanoseconds = u32::try_from(local.subsec_nanosecond()).unwrap();
    NaiveDate::from_ymd_opt(local.year().into(), month, day)
        .and_then(|date| date.and_hms_nano_opt(hour, minute, second, nanoseconds))
        .unwrap()
}

/// The instant of a local date and time. The earlier one if clocks are set back over it.
#[must_use]
pub fn instant(local: NaiveDateTime, zone: &str) -> DateTime<Utc> {
    let epoch = civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let since = local.and_utc().timestamp_micros();
    let local = epoch + jiff::SignedDuration::from_micros(since);
    let at = rules(zone).to_ambiguous_timestamp(local).compatible();
    DateTime::from_timestamp_micros(at.unwrap().as_microsecond()).unwrap()
}
