//! A worker on the unmodified Rust SDK, to be told by calls what to do: as python_worker.py, function by function.
//!
//!     rust_worker URL NAME

#![allow(deprecated)] // trigger types and bindings: what other SDKs have, and engines must serve

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use iii_helpers::observability::OtelConfig;
use iii_sdk::channel::{ChannelReader, ChannelWriter, StreamChannelRef};
use iii_sdk::helpers::create_channel;
use iii_sdk::protocol::{TriggerRequest, TriggerRequestWithMetadata};
use iii_sdk::runtime::{FunctionRef, WorkerMetadata};
use iii_sdk::{Dispatch, Error, IIIClient, InitOptions, RegisterFunction, TriggerAction};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

const BLOCK: usize = 65_521;

static WORKER: OnceLock<IIIClient> = OnceLock::new();
static RESUMED: Notify = Notify::const_new();

fn worker() -> &'static IIIClient {
    WORKER.get().expect("the worker is there before its functions")
}

/// An event, which the tests know by how its line begins.
fn say(event: &str, about: Value) {
    let about = about.to_string();
    let comma = if about == "{}" { "" } else { "," };
    println!("{{\"event\":\"{event}\"{comma}{}", &about[1..]);
}

fn error_of(error: &Error) -> Value {
    match error.invocation_error() {
        Some(remote) => json!({"code": remote.code, "message": remote.message, "stacktrace": remote.stacktrace}),
        None => {
            let shown = format!("{error:?}");
            let kind = shown.split(['(', ' ']).next().unwrap_or_default();
            json!({"code": kind, "message": error.to_string()})
        }
    }
}

fn end_of(data: &Value, key: &str) -> Result<StreamChannelRef, Error> {
    Ok(serde_json::from_value(data[key].clone())?)
}

async fn pause(seconds: &Value) {
    if let Some(seconds) = seconds.as_f64() {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
}

/// The pieces of a stream: its bytes repeat after BLOCK of them.
fn pieces(total: usize, chunk: usize) -> impl Iterator<Item = Vec<u8>> {
    let pattern: Vec<u8> = (0..chunk + BLOCK).map(|i| i % BLOCK).map(|i| (i * i % 251) as u8).collect();
    (0..total).step_by(chunk).map(move |at| {
        let start = at % BLOCK;
        pattern[start..start + chunk.min(total - at)].to_vec()
    })
}

async fn write_to(writer: &ChannelWriter, data: &Value) -> Value {
    let (mut written, mut digest) = (0, Sha256::new());
    let result = write_all(writer, data, &mut written, &mut digest).await;
    let mut told = json!({"bytes": written, "sha256": format!("{:x}", digest.finalize())});
    if let Err(error) = result {
        told["error"] = error_of(&error);
    }
    told
}

async fn write_all(
    writer: &ChannelWriter,
    data: &Value,
    written: &mut usize,
    digest: &mut Sha256,
) -> Result<(), Error> {
    for text in data["texts"].as_array().into_iter().flatten() {
        writer.send_message(text.as_str().unwrap_or_default()).await?;
    }
    let chunk = data["chunk"].as_u64().unwrap_or(65_536) as usize;
    for piece in pieces(data["total"].as_u64().unwrap_or(0) as usize, chunk) {
        writer.write(&piece).await?;
        *written += piece.len();
        digest.update(&piece);
        say("wrote", json!({"bytes": *written}));
        pause(&data["pause_seconds"]).await;
    }
    if data["empty"] == true {
        writer.write(b"").await?;
    }
    if data["hold"] == true {
        pending::<()>().await;
    }
    writer.close().await
}

async fn read_from(reader: &ChannelReader, data: &Value) -> Value {
    let (mut read, mut largest, mut digest) = (0, 0, Sha256::new());
    let mut pause_after = data["pause_after"].as_u64();
    let texts = Arc::new(Mutex::new(Vec::new()));
    let heard = texts.clone();
    reader
        .on_message(move |text| {
            say("heard", json!({"text": text.chars().take(100).collect::<String>()}));
            heard.lock().unwrap().push(text);
        })
        .await;
    let error = loop {
        let piece = match reader.next_binary().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break Value::Null,
            Err(error) => break error_of(&error),
        };
        read += piece.len() as u64;
        largest = largest.max(piece.len());
        digest.update(&piece);
        say("read", json!({"bytes": read}));
        if data["stop_after"].as_u64().is_some_and(|enough| read >= enough) {
            if data["hold"] == true {
                pending::<()>().await;
            }
            let _ = reader.close().await;
            break Value::Null;
        }
        if pause_after.is_some_and(|enough| read >= enough) {
            pause_after = None;
            match data["pause_seconds"] {
                Value::Null => RESUMED.notified().await,
                ref seconds => pause(seconds).await,
            }
        }
        pause(&data["each_seconds"]).await;
    };
    let texts = texts.lock().unwrap().clone();
    let sha256 = format!("{:x}", digest.finalize());
    json!({"bytes": read, "sha256": sha256, "texts": texts, "largest": largest, "error": error})
}

fn request(data: &Value, payload: Value) -> TriggerRequestWithMetadata {
    let mut request = TriggerRequest::new(data["function_id"].as_str().unwrap_or_default(), payload);
    request.timeout_ms = data["timeout_ms"].as_u64();
    if data["void"] == true {
        request.action = Some(TriggerAction::Void);
    }
    if let Some(queue) = data["queue"].as_str() {
        request.action = Some(TriggerAction::Enqueue { queue: queue.to_string() });
    }
    let request = request.dispatch(Dispatch::Remote);
    match data["metadata"] {
        Value::Null => request,
        ref metadata => request.metadata(metadata.clone()),
    }
}

async fn call(data: Value) -> Result<Value, Error> {
    Ok(match worker().trigger(request(&data, data["payload"].clone())).await {
        Ok(result) => json!({"result": result}),
        Err(error) => json!({"error": error_of(&error)}),
    })
}

/// Own the channel and write to it, while `function_id` gets its reader.
async fn create_and_write(data: Value) -> Result<Value, Error> {
    let channel = create_channel(worker(), None).await?;
    let mut payload = data["payload"].clone();
    payload["reader"] = serde_json::to_value(&channel.reader_ref)?;
    let asked = worker().trigger(request(&data, payload));
    let (written, result) = tokio::join!(write_to(&channel.writer, &data), asked);
    Ok(json!({"written": written, "result": result?}))
}

/// Own the channel and read from it, while `function_id` gets its writer.
async fn create_and_read(data: Value) -> Result<Value, Error> {
    let channel = create_channel(worker(), None).await?;
    let mut payload = data["payload"].clone();
    payload["writer"] = serde_json::to_value(&channel.writer_ref)?;
    let asked = worker().trigger(request(&data, payload));
    let (read, result) = tokio::join!(read_from(&channel.reader, &data), asked);
    Ok(json!({"read": read, "result": result?}))
}

static FUNCTIONS: OnceLock<Mutex<HashMap<String, FunctionRef>>> = OnceLock::new();

fn functions() -> std::sync::MutexGuard<'static, HashMap<String, FunctionRef>> {
    FUNCTIONS.get_or_init(Mutex::default).lock().unwrap()
}

fn register<F, R>(id: &str, handler: F)
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, Error>> + Send + 'static,
{
    let function = worker().register_function(id, RegisterFunction::new_async(handler));
    functions().insert(id.to_string(), function);
}

fn text(data: &Value, key: &str) -> String {
    data[key].as_str().unwrap_or_default().to_string()
}

fn register_all(name: &str) {
    let id = |function: &str| format!("{name}::{function}");
    register(&id("echo"), |data| async { Ok(data) });
    worker().register_function(
        id("echo_metadata"),
        RegisterFunction::new_async(|data: Value, metadata: Option<Value>| async move {
            Ok(json!({"payload": data, "metadata": metadata}))
        }),
    );
    register(&id("fail"), |data| async move { Err(Error::Handler(text(&data, "message"))) });
    register(&id("nothing"), |_| async { Ok(Value::Null) });
    register(&id("hang"), |_| async {
        say("hanging", json!({}));
        pending().await
    });
    register(&id("note"), |data| async move {
        say("noted", json!({"data": data}));
        Ok(Value::Null)
    });
    register(&id("resume"), |_| async {
        RESUMED.notify_one();
        Ok(Value::Null)
    });
    register(&id("pid"), |_| async { Ok(json!(std::process::id())) });
    register(&id("call"), call);
    register(&id("write"), |data| async move {
        let writer = ChannelWriter::new(worker().address(), &end_of(&data, "writer")?);
        Ok(write_to(&writer, &data).await)
    });
    register(&id("read"), |data| async move {
        let reader = ChannelReader::new(worker().address(), &end_of(&data, "reader")?);
        Ok(read_from(&reader, &data).await)
    });
    register(&id("create_and_write"), create_and_write);
    register(&id("create_and_read"), create_and_read);
    register(&id("register"), |data| async move {
        register(&text(&data, "function_id"), |data| async { Ok(data) });
        Ok(Value::Null)
    });
    register(&id("unregister"), |data| async move {
        let function = functions().remove(&text(&data, "function_id"));
        function.ok_or(Error::Handler("no such function".to_string()))?.unregister();
        Ok(Value::Null)
    });
    #[cfg(feature = "triggers")]
    triggers::register_all(name);
}

/// Trigger types and bindings. The SDK has them up to 0.25.
#[cfg(feature = "triggers")]
mod triggers {
    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock};

    use async_trait::async_trait;
    use iii_sdk::protocol::RegisterTriggerInput;
    use iii_sdk::trigger::{Trigger, TriggerConfig, TriggerHandler};
    use iii_sdk::{Error, RegisterTriggerType};
    use serde_json::{Value, json};

    use super::{register, say, text, worker};

    static BINDINGS: OnceLock<Mutex<HashMap<String, Trigger>>> = OnceLock::new();

    fn bindings() -> std::sync::MutexGuard<'static, HashMap<String, Trigger>> {
        BINDINGS.get_or_init(Mutex::default).lock().unwrap()
    }

    struct Provider;

    #[async_trait]
    impl TriggerHandler for Provider {
        async fn register_trigger(&self, binding: TriggerConfig) -> Result<(), Error> {
            say("offered", json!({"config": binding.config, "metadata": binding.metadata, "target": binding.function_id}));
            match binding.config["refuse"].as_str() {
                Some(reason) => Err(Error::Handler(reason.to_string())),
                None => Ok(()),
            }
        }

        async fn unregister_trigger(&self, _: TriggerConfig) -> Result<(), Error> {
            say("withdrawn", json!({}));
            Ok(())
        }
    }

    pub fn register_all(name: &str) {
        let id = |function: &str| format!("{name}::{function}");
        register(&id("provide"), |data| async move {
            worker().register_trigger_type(RegisterTriggerType::new(text(&data, "type"), "for the tests", Provider));
            Ok(Value::Null)
        });
        register(&id("withdraw"), |data| async move {
            worker().unregister_trigger_type(text(&data, "type"));
            Ok(Value::Null)
        });
        register(&id("bind"), |data| async move {
            let mut input = RegisterTriggerInput::new(text(&data, "type"), text(&data, "function_id"), data["config"].clone());
            input.metadata = data.get("metadata").cloned();
            let binding = worker().register_trigger(input)?;
            bindings().insert(text(&data, "name"), binding);
            Ok(Value::Null)
        });
        register(&id("unbind"), |data| async move {
            let binding = bindings().remove(&text(&data, "name"));
            binding.ok_or(Error::Handler("no such binding".to_string()))?.unregister();
            Ok(Value::Null)
        });
    }
}

async fn serve(url: &str, name: &str) {
    let telemetry = std::env::var("SDK_TESTS_TELEMETRY").as_deref() == Ok("default");
    let off = OtelConfig { enabled: Some(false), ..OtelConfig::default() };
    let options = InitOptions {
        metadata: Some(WorkerMetadata { name: name.to_string(), ..WorkerMetadata::default() }),
        otel: (!telemetry).then_some(off),
        ..InitOptions::default()
    };
    let _ = WORKER.set(iii_sdk::register_worker(url, options));
    register_all(name);
    let own = json!({"function_id": format!("{name}::pid"), "timeout_ms": 1000});
    while worker().trigger(request(&own, Value::Null)).await.is_err() {
        eprintln!("not yet routed"); // one that comes back is the proof that the engine routes to it
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    say("ready", json!({"pid": std::process::id()}));
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, name] = &arguments[..] else {
        panic!("usage: rust_worker URL NAME");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(url, name));
    std::process::exit(0);
}
