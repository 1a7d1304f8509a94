//! `lockhouse completions` and `lockhouse man`: generated from the definition of the command line.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Lockhouse;

/// Prints the completion script of a shell.
pub(super) fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Lockhouse::command(), "lockhouse", &mut script);
    print(&script);
}

/// Prints the manual page, with a section for each subcommand.
pub(super) fn manual() -> io::Result<()> {
    let mut program = Lockhouse::command();
    // Sets the full names of the subcommands.
    program.build();
    let man = Man::new(program.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    describe_subcommands(&program, &mut page)?;
    man.render_extra_section(&mut page)?;
    print(&page);
    Ok(())
}

fn describe_subcommands(parent: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_bin_name().unwrap_or(command.get_name());
        writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
        let man = Man::new(command.clone().bin_name(name.to_owned()));
        let mut sections = Vec::new();
        man.render_synopsis_section(&mut sections)?;
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        for line in String::from_utf8_lossy(&sections).lines() {
            // The sections of a subcommand become subsections.
            writeln!(page, "{}", line.replacen(".SH ", ".SS ", 1))?;
        }
        describe_subcommands(command, page)?;
    }
    Ok(())
}

fn print(text: &[u8]) {
    // A failed write means that the reader has closed the pipe, which is no error here.
    let _ = io::stdout().write_all(text);
}
