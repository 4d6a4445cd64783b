// What a user of the openai package for JavaScript does, with either major, at CLIENTS_BASE_URL.

import assert from "node:assert/strict";
import { test } from "node:test";

import { z } from "zod";

const MIXED = "Hi 🦊, 跳过 naïve 👩‍🚀 e\u0301 — \u2028 end";
const Trip = z.object({
  name: z.string(),
  legs: z.array(
    z.object({ to: z.string(), distance: z.number(), unit: z.enum(["km", "mile"]) }),
  ),
  note: z.string().nullable(),
});
const TRIP = {
  name: "Tour ü",
  legs: [{ to: "Rome", distance: 1.5, unit: "km" }],
  note: null,
};
const CALLED = [
  ["weather", { city: "Köln", days: 2 }],
  ["clock", {}],
];
const CALLS = CALLED.map(
  ([name, args]) =>
    `<tool_call>\n{"name": "${name}", "arguments": ${spaced(args)}}\n</tool_call>`,
).join("\n");

// JSON with the spaces that Python writes, and models too.
function spaced(value) {
  return JSON.stringify(value, null, 1).replace(/\n */g, " ").replace(/([{[]) | (?=[}\]])/g, "$1");
}

const ask = (text, more = {}) => ({
  model: "echo",
  messages: [{ role: "user", content: text }],
  temperature: 0,
  ...more,
});

// Tools that remember how they were called.
function tools(zodFunction) {
  const called = [];
  const offered = [
    zodFunction({
      name: "weather",
      parameters: z.object({ city: z.string(), days: z.number().int() }),
      function: (args) => {
        called.push(["weather", args]);
        return `Sun in ${args.city} for ${args.days} days ☀`;
      },
    }),
    zodFunction({
      name: "clock",
      parameters: z.object({}),
      function: (args) => {
        called.push(["clock", args]);
        return "It is noon";
      },
    }),
  ];
  return { called, offered };
}

for (const major of ["openai", "openai-6"]) {
  const { OpenAI, BadRequestError, NotFoundError } = await import(major);
  const { zodFunction, zodResponseFormat } = await import(`${major}/helpers/zod`);
  const client = new OpenAI({
    baseURL: process.env.CLIENTS_BASE_URL,
    apiKey: "none",
    maxRetries: 0,
    timeout: 30_000,
  });

  test(`chat, ${major}`, async () => {
    const { data, response } = await client.chat.completions.create(ask(MIXED)).withResponse();
    const [choice] = data.choices;
    assert.deepEqual([choice.message.content, choice.finish_reason], [MIXED, "stop"]);
    assert.equal(data.usage.completion_tokens, Buffer.byteLength(MIXED));
    assert.equal(data._request_id, response.headers.get("x-request-id"));
  });

  test(`stream, ${major}`, async () => {
    const usage = { include_usage: true };
    const stream = await client.chat.completions.create(
      ask(MIXED, { stream: true, stream_options: usage }),
    );
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const last = chunks.pop();
    const texts = chunks.map((chunk) => chunk.choices[0].delta.content ?? "");
    assert.equal(texts.join(""), MIXED);
    assert.ok(texts.length > 2);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
    assert.deepEqual([last.choices, last.usage.completion_tokens], [[], Buffer.byteLength(MIXED)]);
  });

  test(`a stream accumulates, ${major}`, async () => {
    const stream = client.chat.completions.stream(ask(MIXED));
    const texts = [];
    stream.on("content", (delta) => texts.push(delta));
    assert.equal(await stream.finalContent(), MIXED);
    assert.equal(texts.join(""), MIXED);
  });

  test(`a stream that is left, ${major}`, async () => {
    const stream = await client.chat.completions.create(ask(MIXED.repeat(30), { stream: true }));
    for await (const chunk of stream) {
      assert.equal(chunk.object, "chat.completion.chunk");
      break;
    }
    assert.ok(stream.controller.signal.aborted);
  });

  for (const streaming of [false, true]) {
    test(`a tool loop, ${streaming ? "streamed" : "whole"}, ${major}`, async () => {
      const { called, offered } = tools(zodFunction);
      const runner = client.chat.completions.runTools(
        ask(CALLS, { tools: offered, stream: streaming }),
      );
      assert.equal(await runner.finalContent(), "It is noon");
      assert.deepEqual(called, CALLED);
      const [, first, ...results] = runner.messages;
      assert.equal(new Set(first.tool_calls.map((call) => call.id)).size, 2);
      assert.deepEqual(
        results.slice(0, -1).map((result) => result.tool_call_id),
        first.tool_calls.map((call) => call.id),
      );
      const reasons = runner.allChatCompletions().map((whole) => whole.choices[0].finish_reason);
      assert.deepEqual(reasons, ["tool_calls", "stop"]);
    });
  }

  test(`structured output, ${major}`, async () => {
    const format = { response_format: zodResponseFormat(Trip, "trip") };
    const asked = ask(spaced(TRIP), format);
    const whole = await client.chat.completions.parse(asked);
    assert.deepEqual(whole.choices[0].message.parsed, TRIP);
    const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.parsed, TRIP);
    const other = await client.chat.completions.parse(ask("No.", format));
    Trip.parse(other.choices[0].message.parsed);
  });

  test(`calls, ${major}`, async () => {
    const asked = ask(CALLS, { tools: tools(zodFunction).offered });
    const whole = await client.chat.completions.parse(asked);
    const calls = whole.choices[0].message.tool_calls;
    assert.deepEqual(
      calls.map((call) => [call.function.name, call.function.parsed_arguments]),
      CALLED,
    );
    const started = [];
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      const deltas = chunk.choices[0].delta.tool_calls ?? [];
      started.push(...deltas.filter((delta) => delta.id));
    }
    assert.deepEqual(
      started.map((delta) => [delta.index, delta.type, delta.function.name]),
      [
        [0, "function", "weather"],
        [1, "function", "clock"],
      ],
    );
    // The loop above makes ids up where there are none.
    for (const found of [calls, started]) {
      assert.equal(new Set(found.map((call) => call.id).filter(Boolean)).size, 2);
    }
  });

  test(`embeddings, ${major}`, async () => {
    const asked = { model: "vec", input: ["red apples", MIXED] };
    const whole = await client.embeddings.create(asked);
    const floats = await client.embeddings.create({ ...asked, encoding_format: "float" });
    whole.data.forEach(({ embedding }, index) => {
      assert.equal(embedding.length, 48);
      embedding.forEach((value, at) =>
        assert.ok(Math.abs(value - floats.data[index].embedding[at]) < 1e-6),
      );
    });
  });

  test(`models, ${major}`, async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.deepEqual(names, ["echo", "org/echo", "vec"]);
    assert.equal((await client.models.retrieve("org/echo")).id, "org/echo");
  });

  test(`errors, ${major}`, async () => {
    for (const stream of [false, true]) {
      await assert.rejects(
        client.chat.completions.create(ask("x".repeat(6000), { stream })),
        (error) =>
          error instanceof BadRequestError &&
          error.code === "context_length_exceeded" &&
          error.param === "messages" &&
          Boolean(error.requestID),
      );
    }
    await assert.rejects(client.models.retrieve("gpt-9"), NotFoundError);
  });
}
