// Tries Shopify's official packages on a fake shop and on signed webhooks. What there is to try comes on standard input, from javascript_test.go.
import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';

import { createAdminApiClient } from '@shopify/admin-api-client';
import '@shopify/shopify-api/adapters/node';
import { setAbstractFetchFunc } from '@shopify/shopify-api/runtime';
import {
  ApiVersion, GraphqlQueryError, HttpMaxRetriesError, HttpResponseError, HttpThrottlingError, LogSeverity, Session, shopifyApi,
} from '@shopify/shopify-api';
import { restResources } from '@shopify/shopify-api/rest/admin/2026-04';

const given = JSON.parse(await text(process.stdin));

// seen are the statuses of what was fetched since it was last emptied.
const seen = [];

// fetchFake fetches from the fake what the packages would from Shopify.
async function fetchFake(url, init) {
  const { protocol, host, pathname, search } = new URL(url);
  assert.equal(protocol, 'https:');
  assert.match(host, /^[a-z0-9-]+\.myshopify\.com$/);
  const response = await fetch(`${given.url}/${host}${pathname}${search}`, init);
  seen.push(response.status);
  return response;
}

// fetched runs work, and says with what statuses it was answered.
async function fetched(work) {
  seen.length = 0;
  await work();
  return [...seen];
}

setAbstractFetchFunc(fetchFake);

const api = (apiSecretKey) => shopifyApi({
  apiKey: 'key', apiSecretKey, apiVersion: ApiVersion.April26, hostName: 'app.example', isEmbeddedApp: true, logger: { level: LogSeverity.Error }, restResources,
});
const shopify = api(given.secret);

const session = (shop, accessToken = given.token) => new Session({ id: `offline_${shop}`, shop, state: '', isOnline: false, accessToken });
const rest = (shop, accessToken) => new shopify.clients.Rest({ session: session(shop, accessToken) });

// The two packages' clients, which are asked alike. What is refused, one returns and the other throws.
const clients = {
  'admin-api-client': (shop, accessToken = given.token) => createAdminApiClient({ storeDomain: shop, apiVersion: ApiVersion.April26, accessToken, customFetchApi: fetchFake }),
  'shopify-api': (shop, accessToken) => new shopify.clients.Graphql({ session: session(shop, accessToken) }),
};

// answer is what a request without errors is answered.
async function answer(request) {
  const body = await request;
  assert.equal(body.errors, undefined);
  return body;
}

// refusal is what a request that GraphQL refuses is answered.
async function refusal(request) {
  try {
    const body = await request;
    assert.ok(body.errors, 'there are errors');
    return body;
  } catch (error) {
    assert.ok(error instanceof GraphqlQueryError, error);
    assert.equal(error.message, error.body.errors.graphQLErrors[0].message);
    return error.body;
  }
}

const productQuery = `query Product($id: ID!) {
  product(id: $id) { id legacyResourceId title vendor tags status variants(first: 1) { nodes { id title } } }
}`;
const createMutation = `mutation Create($product: ProductCreateInput!) {
  productCreate(product: $product) { product { id title } userErrors { field message } }
}`;
const pageQuery = `query Page($first: Int!, $after: String) {
  products(first: $first, after: $after) { nodes { legacyResourceId title } pageInfo { hasNextPage endCursor } }
}`;

for (const [name, client] of Object.entries(clients)) {
  test(`${name}: the shop, and what asking costs`, async () => {
    const { data, extensions, headers } = await answer(client(given.shop).request('{ shop { myshopifyDomain currencyCode } }'));
    assert.deepEqual(data, { shop: { myshopifyDomain: given.shop, currencyCode: 'USD' } });
    const { requestedQueryCost, actualQueryCost, throttleStatus } = extensions.cost;
    assert.ok(requestedQueryCost > 0 && actualQueryCost > 0 && actualQueryCost <= requestedQueryCost, JSON.stringify(extensions));
    assert.equal(throttleStatus.maximumAvailable, given.points);
    assert.equal(throttleStatus.restoreRate, given.pointsPerSecond);
    assert.ok(throttleStatus.currentlyAvailable > 0 && throttleStatus.currentlyAvailable <= given.points, JSON.stringify(extensions));
    const version = headers instanceof Headers ? headers.get('X-Shopify-API-Version') : headers['X-Shopify-Api-Version'].join();
    assert.equal(version, ApiVersion.April26);
  });

  test(`${name}: a product is created and read back`, async () => {
    const product = { title: `Grüner “Tee” 茶 of ${name}`, vendor: given.vendor, tags: ['a', 'b'], status: 'ACTIVE' };
    const made = (await answer(client(given.empty).request(createMutation, { variables: { product } }))).data.productCreate;
    assert.deepEqual(made, { product: { id: made.product.id, title: product.title }, userErrors: [] });
    const { data } = await answer(client(given.empty).request(productQuery, { variables: { id: made.product.id } }));
    const { id, legacyResourceId, variants, ...same } = data.product;
    assert.equal(id, made.product.id);
    assert.equal(id, `gid://shopify/Product/${legacyResourceId}`);
    assert.deepEqual(same, product);
    assert.equal(variants.nodes.length, 1);
    const unknown = await answer(client(given.empty).request(productQuery, { variables: { id: 'gid://shopify/Product/1' } }));
    assert.equal(unknown.data.product, null);
  });

  test(`${name}: pages by cursor`, async () => {
    const titles = [];
    let pages = 0;
    for (let after = null; ;) {
      const { nodes, pageInfo } = (await answer(client(given.shop).request(pageQuery, { variables: { first: given.page, after } }))).data.products;
      titles.push(...nodes.map((node) => node.title));
      pages++;
      if (!pageInfo.hasNextPage) break;
      assert.notEqual(pageInfo.endCursor, after);
      after = pageInfo.endCursor;
    }
    assert.deepEqual(titles, given.titles);
    assert.equal(pages, Math.ceil(given.titles.length / given.page));
  });

  test(`${name}: user errors`, async () => {
    const { data, extensions } = await answer(client(given.empty).request(createMutation, { variables: { product: { title: '' } } }));
    assert.deepEqual(data, { productCreate: { product: null, userErrors: [{ field: ['title'], message: "Title can't be blank" }] } });
    assert.ok(extensions.cost.actualQueryCost > 0);
  });

  test(`${name}: an undefined field`, async () => {
    const { data, errors } = await refusal(client(given.shop).request('query Wrong { shop { nope } }'));
    assert.equal(data, undefined);
    assert.equal(errors.networkStatusCode, 200);
    assert.equal(errors.graphQLErrors.length, 1);
    const { message, locations, extensions } = errors.graphQLErrors[0];
    assert.equal(message, "Field 'nope' doesn't exist on type 'Shop'");
    assert.deepEqual(locations, [{ line: 1, column: 22 }]);
    assert.deepEqual(extensions, { code: 'undefinedField', typeName: 'Shop', fieldName: 'nope' });
  });

  test(`${name}: a variable of the wrong type`, async () => {
    const { errors } = await refusal(client(given.shop).request(pageQuery, { variables: { first: 'many' } }));
    assert.equal(errors.networkStatusCode, 200);
    assert.equal(errors.graphQLErrors.length, 1);
    const { message, extensions } = errors.graphQLErrors[0];
    assert.match(message, /^Variable \$first of type Int! was provided invalid value/);
    assert.equal(extensions.code, 'INVALID_VARIABLE');
    assert.equal(extensions.value, 'many');
    assert.ok(Array.isArray(extensions.problems));
  });

  test(`${name}: throttled`, async () => {
    let body;
    assert.deepEqual(await fetched(async () => { body = await refusal(client(given.drained).request(pageQuery, { variables: { first: 10 }, retries: 3 })); }), [200]);
    const { data, errors, extensions } = body;
    assert.equal(data, undefined);
    assert.equal(errors.networkStatusCode, 200);
    assert.equal(errors.graphQLErrors.length, 1);
    assert.equal(errors.graphQLErrors[0].message, 'Throttled');
    assert.equal(errors.graphQLErrors[0].extensions.code, 'THROTTLED');
    // How long to wait, as every guide computes it.
    const { requestedQueryCost, actualQueryCost, throttleStatus } = extensions.cost;
    assert.equal(actualQueryCost, null);
    assert.ok((requestedQueryCost - throttleStatus.currentlyAvailable) / throttleStatus.restoreRate > 0, JSON.stringify(extensions));
  });

  test(`${name}: a 429 is retried`, async () => {
    const shop = `${given.flaky}-${name}.myshopify.com`;
    const statuses = await fetched(async () => {
      const { data } = await answer(client(shop).request('{ shop { myshopifyDomain } }', { retries: 1 }));
      assert.deepEqual(data, { shop: { myshopifyDomain: shop } });
    });
    assert.deepEqual(statuses, [429, 200]);
  });
}

test('admin-api-client: what HTTP refuses', async () => {
  const wrong = await clients['admin-api-client'](given.shop, 'wrong').request('{ shop { id } }');
  assert.equal(wrong.errors.networkStatusCode, 401);
  const flaky = await clients['admin-api-client'](`${given.flaky}-once-a.myshopify.com`).request('{ shop { id } }');
  assert.equal(flaky.errors.networkStatusCode, 429);
  assert.equal(flaky.errors.response.headers.get('Retry-After'), '2.0');
});

test('shopify-api: what HTTP refuses', async () => {
  const requests = {
    graphql: (shop, token) => clients['shopify-api'](shop, token).request('{ shop { id } }'),
    rest: (shop, token) => rest(shop, token).get({ path: 'shop' }),
  };
  for (const [name, request] of Object.entries(requests)) {
    await assert.rejects(request(given.shop, 'wrong'), (error) => {
      assert.equal(error.constructor, HttpResponseError);
      assert.equal(error.response.code, 401);
      return true;
    });
    await assert.rejects(request(`${given.flaky}-once-${name}.myshopify.com`), (error) => {
      assert.ok(error instanceof HttpThrottlingError, error);
      assert.equal(error.response.code, 429);
      assert.equal(error.response.retryAfter, 2);
      return true;
    });
  }
});

test('rest: the shop, and a product that GraphQL made', async () => {
  const { body, headers } = await rest(given.shop).get({ path: 'shop' });
  assert.equal(body.shop.myshopify_domain, given.shop);
  assert.deepEqual(headers['X-Shopify-Api-Version'], [ApiVersion.April26]);
  assert.match(headers['X-Shopify-Shop-Api-Call-Limit'].join(), /^[0-9]+\/40$/);
  const made = (await answer(clients['shopify-api'](given.shop).request(pageQuery, { variables: { first: 1 } }))).data.products.nodes[0];
  const { product } = (await rest(given.shop).get({ path: `products/${made.legacyResourceId}` })).body;
  assert.equal(product.id, made.legacyResourceId); // the package makes texts of IDs
  assert.equal(product.title, made.title);
  assert.equal(product.admin_graphql_api_id, `gid://shopify/Product/${made.legacyResourceId}`);
});

test('rest: pages by link, forth and back', async () => {
  const { data } = await answer(clients['shopify-api'](given.shop).request(pageQuery, { variables: { first: 250 } }));
  const all = data.products.nodes.map(({ legacyResourceId, title }) => ({ id: legacyResourceId, title }));
  const pages = [await rest(given.shop).get({ path: 'products', query: { limit: given.page, fields: 'id,title' } })];
  assert.equal(pages[0].pageInfo.prevPage, undefined);
  while (pages.at(-1).pageInfo.nextPage) pages.push(await rest(given.shop).get(pages.at(-1).pageInfo.nextPage));
  assert.deepEqual(pages.flatMap(({ body }) => body.products), all);
  assert.equal(pages.length, Math.ceil(all.length / given.page));
  for (let i = pages.length - 1; i > 0; i--) {
    assert.deepEqual(pages[i].pageInfo.fields, ['id', 'title']);
    const back = await rest(given.shop).get(pages[i].pageInfo.prevPage);
    assert.deepEqual(back.body, pages[i - 1].body);
  }
});

test('rest: the resource classes', async () => {
  const titles = [];
  let query = { limit: given.page };
  do {
    const page = await shopify.rest.Product.all({ session: session(given.shop), ...query });
    titles.push(...page.data.map((product) => product.title));
    query = page.pageInfo.nextPage?.query;
  } while (query);
  assert.deepEqual(titles, given.titles);
  assert.deepEqual(await shopify.rest.Product.count({ session: session(given.shop) }), { count: given.titles.length });
});

test('rest: a 429 is retried', async () => {
  const shop = `${given.flaky}-rest.myshopify.com`;
  const statuses = await fetched(async () => {
    const { body } = await rest(shop).get({ path: 'shop', tries: 2 });
    assert.equal(body.shop.myshopify_domain, shop);
  });
  assert.deepEqual(statuses, [429, 200]);
});

test('rest: a bucket that is empty', async () => {
  const get = (tries) => rest(given.drained).get({ path: 'shop', tries });
  const { headers } = await get();
  assert.deepEqual(headers['X-Shopify-Shop-Api-Call-Limit'], ['1/1']);
  await assert.rejects(get(), (error) => {
    assert.ok(error instanceof HttpThrottlingError, error);
    assert.ok(error.response.retryAfter >= 1, String(error.response.retryAfter));
    return true;
  });
  // The package takes the seconds of Retry-After for milliseconds, so that it is soon through.
  assert.deepEqual(await fetched(() => assert.rejects(get(3), HttpMaxRetriesError)), [429, 429, 429]);
});

// validate asks the package for its verdict on a request, whose headers are named in lower case as by node's server.
function validate({ headers, body }, app = shopify) {
  const named = Object.fromEntries(Object.entries(headers).map(([key, value]) => [key.toLowerCase(), value]));
  return app.webhooks.validate({ rawBody: body, rawRequest: { method: 'POST', url: '/webhooks', headers: named } });
}

const hmacs = { webhooks: 'X-Shopify-Hmac-Sha256', events: 'Shopify-Hmac-Sha256' };
const without = (headers, name) => Object.fromEntries(Object.entries(headers).filter(([key]) => key !== name));
const invalid = (reason) => ({ valid: false, reason });

test('webhooks: what is signed is valid', async () => {
  assert.deepEqual([...new Set(given.webhooks.map(({ want }) => want.webhookType))].sort(), ['events', 'webhooks']);
  for (const request of given.webhooks) {
    const topic = request.want.topic.toUpperCase().replaceAll(/[/.]/g, '_'); // as the package keeps it
    const hmac = request.headers[hmacs[request.want.webhookType]];
    assert.deepEqual(await validate(request), { ...request.want, valid: true, topic, hmac }, request.want.topic);
  }
});

test('webhooks: what is not as it was signed is invalid', async () => {
  for (const { headers, body, want } of given.webhooks) {
    assert.deepEqual(await validate({ headers, body: `${body} ` }), invalid('invalid_hmac'), want.topic);
    assert.deepEqual(await validate({ headers, body: body.replace(/[a-z]/, (c) => (c === 'a' ? 'b' : 'a')) }), invalid('invalid_hmac'), want.topic);
    assert.deepEqual(await validate({ headers, body: '' }), invalid('missing_body'), want.topic);
    assert.deepEqual(await validate({ headers, body }, api(`${given.secret}r`)), invalid('invalid_hmac'), want.topic);
    assert.deepEqual(await validate({ headers: without(headers, hmacs[want.webhookType]), body }), invalid('missing_hmac'), want.topic);
  }
});

test('webhooks: signed with another secret is invalid', async () => {
  for (const request of given.forged) {
    assert.deepEqual(await validate(request), invalid('invalid_hmac'));
    assert.equal((await validate(request, api(given.otherSecret))).valid, true);
  }
});

test('webhooks: mixed families are invalid', async () => {
  const { webhooks, events } = Object.fromEntries(given.pair.map((request) => [request.want.webhookType, request]));
  const { body } = webhooks; // of both
  const missing = {
    webhooks: ['X-Shopify-Topic', 'X-Shopify-Shop-Domain', 'X-Shopify-API-Version', 'X-Shopify-Webhook-Id'],
    events: ['shopify-topic', 'shopify-shop-domain', 'shopify-api-version', 'shopify-webhook-id', 'shopify-event-id'],
  };
  for (const [signed, other, type] of [[webhooks, events, 'webhooks'], [events, webhooks, 'events']]) {
    const headers = { ...without(other.headers, hmacs[other.want.webhookType]), [hmacs[type]]: signed.headers[hmacs[type]] };
    assert.deepEqual(await validate({ headers, body }), { ...invalid('missing_headers'), missingHeaders: missing[type] });
  }
  const forged = given.forged.find(({ want }) => want.webhookType === 'events');
  assert.equal(forged.body, body);
  assert.deepEqual(await validate({ headers: { ...webhooks.headers, ...forged.headers }, body }), invalid('invalid_hmac'));
});
