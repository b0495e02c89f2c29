//! `quarantine`: asks the running service to have media released from quarantine.

use std::process::ExitCode;

use crate::{
    admin::protocol::{ReleaseReply, ReleaseRequest},
    cli::{
        arguments::Cli,
        commands::store::{client, print},
        error::CommandError,
        incident_output::print_released,
        service_arguments::{QuarantineCommand, ReleaseArguments, ServiceAddress},
        setup::start_runtime,
    },
};

pub(crate) fn run(
    cli: &Cli,
    address: &ServiceAddress,
    command: QuarantineCommand,
) -> Result<ExitCode, CommandError> {
    let client = client(cli, address)?;
    let QuarantineCommand::Release(arguments) = command;
    let ReleaseArguments { mxc, comment, allow, duration } = arguments;
    let seconds = allow.then_some(duration.as_secs());
    let request = ReleaseRequest { mxc, comment, allow, seconds };
    start_runtime()?.block_on(async {
        let reply: ReleaseReply = client.post("/v1/quarantine/release", &request).await?;
        print(address.json, &reply, || print_released(cli.terminal().stdout, &reply))?;
        Ok(ExitCode::SUCCESS)
    })
}
