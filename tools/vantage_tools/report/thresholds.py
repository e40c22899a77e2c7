"""Every threshold of the rules. A rule fires when chance does not explain a change and users would notice it."""

# -- Enough data

MIN_REQUESTS = 20  # requests; below, a percentile is a guess
MIN_TRACES = 20  # traces; below, shares of time mean little
MIN_SLOW_TRACES = 5  # traces; below, the growth of self time is a guess
MIN_ROUTE_REQUESTS = 5  # requests; below, a route's latency is not listed

# -- Errors (5xx) and refusals (4xx)

MIN_FAILED_REQUESTS = 5  # requests
MIN_ERROR_RATE = 0.01  # ratio; the lower bound of the confidence interval
MIN_REFUSED_REQUESTS = 10  # requests
MIN_REFUSAL_RATE = 0.10  # ratio; dead links and typing mistakes are normal
REFUSAL_GROWTH = 2.0  # factor to the rate before
CAUSE_SHARE = 0.8  # ratio of failing traces, or of refused requests, that blames another service

# -- Latency

DEFAULT_LATENCY_THRESHOLD = 0.5  # seconds; for services without a latency objective
NOTICEABLE_RATIO = 0.1  # of the latency threshold; a smaller change is not noticed by users
COMPARED_QUANTILES = (0.95, 0.75, 0.5)
MIN_SLOW_RATE = 0.15  # ratio of requests beyond a former quantile; 0.05 would be no change
MEDIAN_GROWTH, P95_GROWTH = 2.0, 1.5  # factors
MAX_SLOW_RATE = 0.05  # ratio of requests beyond the latency threshold before and now

# -- Traffic

MIN_SURGE_REQUESTS = 100  # requests
SURGE_GROWTH = 3.0  # factor to the rate before
SURGE_SIGMAS = 4.0  # standard deviations of a Poisson distribution
MIN_SURGE_SHARE = 0.5  # ratio of the service's requests
MIN_CLIENT_REQUESTS = 100  # requests
MIN_CLIENT_SHARE = 0.8  # ratio of the service's requests
MAX_CLIENT_SHARE_BEFORE = 0.4  # ratio

# -- Error budget. https://sre.google/workbook/alerting-on-slos/

FAST_BURN_RATE = 14.4  # over 5 minutes and 1 hour
SLOW_BURN_RATE = 6.0  # over 30 minutes and 6 hours

# -- Traces

N_PLUS_ONE_CALLS = 8  # equal calls below one span
MIN_N_PLUS_ONE_TRACES = 3  # traces
MIN_N_PLUS_ONE_SHARE = 0.2  # ratio of the operation's traces
MIN_DATABASE_CALLS = 3  # calls
DATABASE_GROWTH = 1.5  # factor to the median before
MIN_UNANSWERED_CALLS = 3  # calls

# -- Logs

MIN_ERROR_LINES = 3  # lines
ERROR_LINE_GROWTH = 5.0  # factor to the expected number of lines

# -- Stack

RESTART_LOOP_COUNT = 3  # starts in the short range; fewer are a deployment
MAX_MEMORY_USE = 0.9  # ratio of the limit
MIN_FREE_DISK = 0.1  # ratio of the file system

# -- Earlier episodes

MAX_LISTED_EPISODES = 3  # of one rule and service; more become one finding
MAX_LISTED_TIMES = 6  # of one finding
EPISODE_P95_GROWTH = 1.5  # factor to the median of the long range
MAX_GAP_STEPS = 2.5  # steps of the plot between two points of one episode
MIN_SLOW_EPISODE_SECONDS = 120.0  # a rate spreads one slow moment over its own length

# -- Data quality warnings

MAX_LISTED_PROBLEMS = 5
YOUNG_SECONDS, YOUNG_RATIO = 120.0, 0.02  # of the long range without data
