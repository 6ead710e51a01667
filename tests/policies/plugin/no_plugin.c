/* A library that is no plug-in. */
int epsim_test_something_else(void);
int epsim_test_something_else(void) { return 1; }
