//! The command line's part: one flag for each row of the table, and two that are no settings.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{
    sources::{Environment, Resolved, SettingsError, resolve},
    table::ROWS,
};

/// Flags as given, not yet read.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    config: Option<PathBuf>,
    /// Print the settings and where each comes from, then stop.
    pub print_config: bool,
    values: BTreeMap<&'static str, String>,
}

impl Flags {
    /// The settings of these flags, the environment and the file.
    ///
    /// # Errors
    /// What is refused, and where it comes from.
    pub fn resolve(&self, environment: &Environment) -> Result<Resolved, SettingsError> {
        let Some(path) = &self.config else {
            return resolve(None, environment, &self.values);
        };
        let text = fs::read_to_string(path);
        let text = text.map_err(|source| SettingsError::File {
            path: path.clone(),
            source,
        })?;
        resolve(Some((path, &text)), environment, &self.values)
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("MILLSTREAM_CONFIG")
            .hide_env(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file with settings; its keys are the names of the flags below");
        let print = Arg::new("print-config")
            .long("print-config")
            .action(ArgAction::SetTrue)
            .help("Print every setting and where its value comes from, then stop");
        let command = command.arg(config).arg(print).next_help_heading("Settings");
        let defaults = super::Settings::default();
        ROWS.iter().fold(command, |command, row| {
            let default = (row.show)(&defaults);
            let default = if default.is_empty() {
                String::new()
            } else {
                format!(" [default: {default}]")
            };
            let help = format!("{}{default} [env: {}]", row.doc, row.variable());
            command.arg(
                Arg::new(row.name)
                    .long(row.name)
                    .value_name(row.value_name)
                    .help(help),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.print_config = matches.get_flag("print-config");
        for row in &ROWS {
            if let Some(value) = matches.get_one::<String>(row.name) {
                self.values.insert(row.name, value.clone());
            }
        }
        Ok(())
    }
}
