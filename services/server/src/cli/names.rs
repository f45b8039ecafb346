//! Arguments with a fixed set of names, and ids.

use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Parses the name of a value of an enum. The help and errors list all names.
pub fn one_of<T, const N: usize>(
    all: [T; N],
    as_str: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(as_str)).map(move |name| {
        let named = all.into_iter().find(|&value| as_str(value) == name);
        named.expect("the inner parser accepts only these names")
    })
}

/// Parses an id. The error states only what was expected.
pub fn uuid<T: FromStr<Err = uuid::Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "not a UUID".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    #[test]
    fn known_name_is_parsed_and_unknown_name_lists_all() {
        let command = || {
            let parser = one_of([true, false], |on| if on { "on" } else { "off" });
            Command::new("test").arg(Arg::new("light").value_parser(parser))
        };
        let matches = command().try_get_matches_from(["test", "off"]).unwrap();
        assert_eq!(matches.get_one("light"), Some(&false));
        let error = command().try_get_matches_from(["test", "dim"]).unwrap_err();
        assert!(
            error.to_string().contains("[possible values: on, off]"),
            "{error}"
        );
    }
}
