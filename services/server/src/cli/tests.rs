use clap::CommandFactory;

use super::*;

fn parse(arguments: &str) -> Command {
    let arguments = std::iter::once("reading-sessions").chain(arguments.split(' '));
    Arguments::try_parse_from(arguments).unwrap().command
}

/// The long help of a command, or of the program for "".
fn help(command: &str) -> String {
    let mut program = Arguments::command();
    let names = command.split(' ').filter(|name| !name.is_empty());
    let command = names.fold(&mut program, |command, name| {
        command.find_subcommand_mut(name).unwrap()
    });
    command.render_long_help().to_string()
}

#[test]
fn arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn old_command_names_are_accepted_and_hidden() {
    assert!(matches!(parse("upkeep -o json"), Command::Jobs(_)));
    assert!(matches!(parse("upkeep list"), Command::Jobs(_)));
    assert!(matches!(parse("upkeep run retention"), Command::Jobs(_)));
    assert!(matches!(parse("jobs run retention"), Command::Jobs(_)));
    assert!(matches!(parse("warmup"), Command::WarmUp(_)));
    assert!(matches!(parse("warm-up"), Command::WarmUp(_)));
    let all = help("");
    assert!(all.contains("jobs") && all.contains("warm-up"), "{all}");
    for old in ["upkeep", "warmup"] {
        assert!(!all.contains(old), "{all}");
    }
    for command in ["jobs", "jobs run", "warm-up"] {
        let text = help(command);
        assert!(
            !text.contains("upkeep") && !text.contains("warmup"),
            "{text}"
        );
    }
}

#[test]
fn old_flag_of_openapi_is_accepted_and_hidden() {
    for flag in ["--admin", "--operators"] {
        let Command::Openapi { admin } = parse(&format!("openapi {flag}")) else {
            panic!("another command")
        };
        assert!(admin, "{flag}");
    }
    let text = help("openapi");
    assert!(
        text.contains("--admin") && !text.contains("--operators"),
        "{text}"
    );
}

#[test]
fn old_role_name_is_accepted_and_hidden() {
    use crate::config::Role;

    let Command::Serve(args) = parse("serve --role maintenance --role jobs") else {
        panic!("another command")
    };
    assert_eq!(args.roles, [Role::Jobs, Role::Jobs]);
    let text = help("serve");
    assert!(
        text.contains("jobs") && !text.contains("maintenance"),
        "{text}"
    );
}

#[cfg(not(feature = "dev"))]
#[test]
fn dev_is_absent_without_its_feature() {
    assert!(Arguments::try_parse_from(["reading-sessions", "dev"]).is_err());
}
