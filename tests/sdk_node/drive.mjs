// Runs one scenario with the official OpenAI package and prints what its user would see, as one line of JSON.
//
//   GATEWAY_BASE_URL=http://127.0.0.1:3000/v1 GATEWAY_KEY=ix-api-key-... node drive.mjs SCENARIO MODEL
//
// Errors of the package are results too: {"error": {"name", "status", "code", "type", "message", "requestId"}}.

import OpenAI from "openai";

const messages = [{ role: "user", content: "Say hello, please." }];
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];

const client = new OpenAI({
  baseURL: process.env.GATEWAY_BASE_URL,
  apiKey: process.env.GATEWAY_KEY,
  maxRetries: Number(process.env.GATEWAY_RETRIES ?? 0),
});

/** What a stream's user puts together from its chunks. */
async function collect(stream) {
  const seen = { text: "", reasons: [], roles: [], usages: [], emptyChoices: 0 };
  for await (const chunk of stream) {
    if (chunk.choices.length === 0) seen.emptyChoices += 1;
    for (const choice of chunk.choices) {
      seen.text += choice.delta.content ?? "";
      if (choice.delta.role) seen.roles.push(choice.delta.role);
      seen.reasons.push(choice.finish_reason);
    }
    if (chunk.usage) seen.usages.push(chunk.usage.total_tokens);
  }
  return seen;
}

const scenarios = {
  async whole(model) {
    const { data, response, request_id } = await client.chat.completions.create({ model, messages }).withResponse();
    return {
      text: data.choices[0].message.content,
      reason: data.choices[0].finish_reason,
      usage: data.usage,
      requestId: request_id,
      servedBy: response.headers.get("x-inferxgate-model"),
      remaining: response.headers.get("x-ratelimit-remaining"),
    };
  },

  async stream(model) {
    return collect(await client.chat.completions.create({ model, messages, stream: true }));
  },

  async streamWithUsage(model) {
    const asked = { model, messages, stream: true, stream_options: { include_usage: true } };
    return collect(await client.chat.completions.create(asked));
  },

  async helper(model) {
    const runner = client.chat.completions.stream({ model, messages });
    let deltas = "";
    runner.on("content", (delta) => {
      deltas += delta;
    });
    const final = await runner.finalChatCompletion();
    return { deltas, text: final.choices[0].message.content, reason: final.choices[0].finish_reason };
  },

  async tools(model) {
    const whole = await client.chat.completions.create({ model, messages, tools, tool_choice: "required" });
    const streamed = await client.chat.completions.stream({ model, messages, tools }).finalChatCompletion();
    const calls = [whole, streamed].map((answer) => ({
      reason: answer.choices[0].finish_reason,
      calls: (answer.choices[0].message.tool_calls ?? []).map((call) => ({
        type: call.type,
        name: call.function.name,
        arguments: JSON.parse(call.function.arguments),
      })),
    }));
    const history = [
      ...messages,
      whole.choices[0].message,
      ...whole.choices[0].message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "sunny" })),
    ];
    const after = await client.chat.completions.create({ model, messages: history });
    return { calls, after: after.choices[0].message.content };
  },

  async models(model) {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    return { ids, found: await client.models.retrieve(model) };
  },

  /** Reads one chunk of a stream and leaves. */
  async leave(model) {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      stream.controller.abort();
      return { first: chunk.choices[0].delta };
    }
    return {};
  },
};

function describe(error) {
  if (!(error instanceof OpenAI.OpenAIError)) throw error;
  return {
    name: error.constructor.name,
    isApiError: error instanceof OpenAI.APIError,
    status: error.status ?? null,
    code: error.code ?? null,
    type: error.type ?? null,
    message: error.message,
    requestId: error.requestID ?? null,
    retryAfter: error.headers?.get("retry-after") ?? null,
  };
}

const [name, model] = process.argv.slice(2);
let result;
try {
  result = await scenarios[name](model);
} catch (error) {
  result = { error: describe(error) };
}
console.log(JSON.stringify(result));
