//! Topic settings on the command line: `name=value`.

/// Splits `name=value`; the value may hold further `=`.
///
/// # Errors
/// A sentence if there is no name or no `=`.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no setting: write name=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(parse_setting("a=b=c"), pair("a", "b=c"));
        assert_eq!(parse_setting("a="), pair("a", ""));
        assert!(parse_setting("=b").is_err());
        assert!(parse_setting("a").is_err());
    }
}
