//! `serve`: runs the service.

use std::{env, process::ExitCode, sync::Arc};

use crate::{
    app::{
        self, Reload, ServiceContext,
        service_manager::{ServiceManager, take_passed_socket},
    },
    cli::{
        arguments::Cli,
        error::CommandError,
        setup::{LoadedConfig, start_runtime},
        signals::{StopSignals, reload_signal},
    },
    config::Config,
};

pub(crate) fn run(cli: &Cli) -> Result<ExitCode, CommandError> {
    let loaded = LoadedConfig::load(cli)?;
    // While the process is single-threaded, since this removes environment variables.
    let socket = take_passed_socket()?;
    let runtime = start_runtime()?;
    let manager = ServiceManager::from_environment(env::vars_os());
    runtime.block_on(serve(loaded, ServiceContext { manager, socket }))
}

async fn serve(loaded: LoadedConfig, context: ServiceContext) -> Result<ExitCode, CommandError> {
    let LoadedConfig { file, config, warnings, level } = loaded;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let stop = StopSignals::new()?;
    let requested = reload_signal()?;
    let read = Arc::new(move || Config::load(file.as_deref(), env::vars_os()));
    app::serve(config, context, Reload { requested, read, level }, stop.received()).await?;
    Ok(ExitCode::SUCCESS)
}
