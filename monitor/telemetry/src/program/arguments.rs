//! The command line and the environment beneath it. An empty variable is how a shell or a service
//! file says "not set".

use std::env;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Parser};

/// What was given, or why it cannot be used: the message names the variable that a bad value comes
/// from.
pub fn try_parse<T: Parser>() -> Result<T, clap::Error> {
    let mut command = without_empty_variables(T::command());
    let given: Vec<OsString> = env::args_os().collect();
    let parsed = command.try_get_matches_from_mut(&given).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|mut error| {
        command.build();
        if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
            && let Some(variable) = variable_behind(&command, argument, &given)
        {
            let named = format!("{argument} (from {variable})");
            error.insert(ContextKind::InvalidArg, ContextValue::String(named));
        }
        error
    })
}

/// [`try_parse`], or the end of the process: 2 after an error, 0 after what was asked for.
pub fn parse<T: Parser>() -> T {
    try_parse().unwrap_or_else(|error| error.exit())
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |argument: &Arg| argument.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| if is_empty(&argument) { argument.env(Resettable::Reset) } else { argument })
        .mut_subcommands(without_empty_variables)
}

/// The variable that an argument's value was taken from, where it is not among those given.
fn variable_behind(command: &Command, argument: &str, given: &[OsString]) -> Option<String> {
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands());
        let Some(found) = command.get_arguments().find(|known| known.to_string() == argument) else { continue };
        let flag = format!("--{}", found.get_long()?);
        let is_given = given.iter().any(|given| {
            given.to_str().is_some_and(|given| given.split_once('=').map_or(given, |(name, _)| name) == flag)
        });
        return found.get_env().filter(|_| !is_given).map(|name| name.to_string_lossy().into_owned());
    }
    None
}
